//! The `record!` macro. The technique is that of serde_json's `json!`: take the tokens of one value at a time off
//! the front, and match `null`, `[..]` and `{..}` before anything is parsed as an expression.

/// A [`Record`](crate::Record) written out.
///
/// Values are `null`, lists, dicts, and expressions of any type that a [`Value`](crate::Value) can be made
/// [`from`](std::convert::From). Names are literals, constants, or expressions in parentheses.
///
/// ```
/// use dictdb::record;
/// let (n, name) = (1, String::from("Ann"));
/// let user = record! {
///     "id": n + 1,
///     "name": name,
///     "tags": ["a", "b", null],
///     "geo": { "lat": 1.5, "names": [{ "en": "Rome" }] },
///     "manager": null,
///     (format!("extra_{n}")): true,
/// };
/// assert_eq!(user["id"], 2);
/// assert_eq!(user["extra_1"], true);
/// assert!(record! {}.is_empty());
/// ```
#[macro_export]
macro_rules! record {
    ($($fields:tt)*) => { $crate::record_internal!(@dict [] $($fields)*) };
}

/// The steps of [`record!`]: not part of the interface.
#[doc(hidden)]
#[macro_export]
macro_rules! record_internal {
    (@dict []) => { $crate::Record::new() };
    (@dict [$($done:expr,)+]) => { $crate::Record::from([$($done,)+]) };
    (@dict [$($done:expr,)*] $name:tt : $value:tt $(, $($rest:tt)*)?) => {
        $crate::record_internal!(
            @dict [$($done,)* ($crate::record_internal!(@name $name), $crate::record_internal!(@value $value)),]
            $($($rest)*)?
        )
    };
    (@dict [$($done:expr,)*] $name:tt : $value:expr $(, $($rest:tt)*)?) => {
        $crate::record_internal!(
            @dict [$($done,)* ($crate::record_internal!(@name $name), $crate::Value::from($value)),]
            $($($rest)*)?
        )
    };

    (@list [$($done:expr,)*]) => { $crate::Value::List(::std::vec![$($done,)*]) };
    (@list [$($done:expr,)*] $value:tt $(, $($rest:tt)*)?) => {
        $crate::record_internal!(@list [$($done,)* $crate::record_internal!(@value $value),] $($($rest)*)?)
    };
    (@list [$($done:expr,)*] $value:expr $(, $($rest:tt)*)?) => {
        $crate::record_internal!(@list [$($done,)* $crate::Value::from($value),] $($($rest)*)?)
    };

    (@name ($name:expr)) => { ::std::string::String::from($name) };
    (@name $name:expr) => { ::std::string::String::from($name) };

    (@value null) => { $crate::Value::Null };
    (@value [$($values:tt)*]) => { $crate::record_internal!(@list [] $($values)*) };
    (@value {$($fields:tt)*}) => { $crate::Value::Dict($crate::record!($($fields)*)) };
    (@value $value:expr) => { $crate::Value::from($value) };
}

#[cfg(test)]
mod tests {
    use crate::{Record, Value};

    #[test]
    fn a_record_written_out_is_the_one_put_together_by_hand() -> Result<(), std::num::ParseIntError> {
        const NAME: &str = "const";
        let (n, list) = (4, vec![1.5_f32]);
        let written = record! {
            "null": null, "neg": -1, "sum": n + 1, "call": list.len(), "try": "7".parse::<i64>()?,
            "list": [null, [], {}, -2, n * 2, [[3]], { "a": [null,], },],
            "index": [1, 2, 3][1],
            "dict": { "b": { "c": null }, },
            "some": Some("x"), "none": None::<bool>, "vec": list, "if": if n > 3 { "big" } else { "small" },
            NAME: 'c', (format!("n{n}")): u64::MAX,
        };
        let mut by_hand = Record::new();
        by_hand.insert("null", Value::Null);
        by_hand.insert("neg", -1);
        by_hand.insert("sum", 5);
        by_hand.insert("call", 1);
        by_hand.insert("try", 7);
        let inner = Record::from([("a", Value::List(vec![Value::Null]))]);
        by_hand.insert(
            "list",
            Value::List(vec![
                Value::Null,
                Value::List(vec![]),
                Record::new().into(),
                Value::Int(-2),
                Value::Int(8),
                Value::from(vec![vec![3]]),
                inner.into(),
            ]),
        );
        by_hand.insert("index", 2);
        by_hand.insert("dict", Record::from([("b", Record::from([("c", Value::Null)]))]));
        by_hand.insert("some", "x");
        by_hand.insert("none", Value::Null);
        by_hand.insert("vec", vec![1.5]);
        by_hand.insert("if", "big");
        by_hand.insert("const", "c");
        by_hand.insert("n4", u64::MAX);
        assert_eq!(written.to_string(), by_hand.to_string());
        assert_eq!(written, by_hand);
        assert_eq!(record! {}, Record::new());
        Ok(())
    }
}
