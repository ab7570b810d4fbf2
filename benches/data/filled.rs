// A filled database, included by the benchmarks that begin with one.

/// A database whose table `users` holds the first `rows` users.
fn filled(rows: i64) -> dictdb::DictDb {
    let db = dictdb::DictDb::builder().ring_bytes(256 << 20).build();
    db.create_table("users", "id").unwrap();
    let table = db.typed::<User>("users").unwrap();
    let users: Vec<User> = (0..rows).map(User::new).collect();
    for chunk in users.chunks(1_000) {
        table.insert_many(chunk).unwrap();
    }
    db
}
