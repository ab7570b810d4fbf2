"""What DictDB for Python does with the records of a file (one JSON object a line): prints its figures as JSON."""

import json
import logging
import sys
import time
from pathlib import Path

from dictdb import DictDB, BackupManager

logging.disable(logging.CRITICAL)


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def insert(table, records):
    for record in records:
        table.insert(record)


def change(table, records):
    for record in records:
        table.upsert(record)


def main():
    source, changed, folder = (Path(argument) for argument in sys.argv[1:4])
    records = [json.loads(line) for line in source.open(encoding="utf-8")]
    changes = [json.loads(line) for line in changed.open(encoding="utf-8")]
    db = DictDB()
    db.create_table("users", primary_key="id")
    table = db.get_table("users")
    inserting, _ = seconds(lambda: insert(table, records))

    manager = BackupManager(db, folder, file_format="json", incremental=True)
    full, _ = seconds(manager.backup_full)
    table.clear_dirty_tracking()
    change(table, changes)
    delta, _ = seconds(manager.backup_delta)
    (file,) = folder.glob("dictdb_backup_*.json")
    (delta_file,) = folder.glob("dictdb_delta_*.json")

    count = len(records)
    load, loaded = seconds(lambda: DictDB.load(str(file), "json"))
    if loaded.get_table("users").count() != count:
        raise SystemExit("records are missing after the load")
    figures = {
        "insert": count / inserting,
        "full": full,
        "full_bytes": file.stat().st_size / 1e6,
        "delta": delta * 1e3,
        "delta_bytes": delta_file.stat().st_size / 1e6,
        "load": load,
    }
    print(json.dumps(figures))


main()
