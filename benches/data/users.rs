// The record of the benchmarks, included by each of them.

use serde::{Deserialize, Serialize};

/// About 110 bytes of values; 140 as a row with its field names.
#[derive(Clone, Serialize, Deserialize)]
struct User {
    id: i64,
    name: String,
    email: String,
    age: u32,
    score: f64,
    tags: Vec<String>,
    active: bool,
}

impl User {
    fn new(id: i64) -> User {
        User {
            id,
            name: format!("user number {id:012}"),
            email: format!("user.{id:012}@mail.example.org"),
            age: (id % 90) as u32,
            score: id as f64 * 0.37,
            tags: vec!["alpha".to_owned(), "beta".to_owned(), format!("tag-{:03}", id % 1000)],
            active: id % 3 == 0,
        }
    }
}
