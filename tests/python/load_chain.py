"""Loads a full backup and applies deltas in order, as DictDB's guide to backups says, with the real DictDB 1.11.

Usage: load_chain.py FULL [DELTA ...]

Prints what it holds after each file: a list of {"affected": count, "tables": {...}}, tables as in a full backup, with
the automatic key that it would give next.
"""

import json
import sys

from dictdb import DictDB
from dictdb.core.types import serialize_schema_type
from dictdb.storage.persist import apply_delta


def held(db):
    tables = {}
    for name, table in db.tables.items():
        schema = table.schema and {field: serialize_schema_type(kind) for field, kind in table.schema.items()}
        # A key that is not its record's own would not show in the records.
        assert all(key == record[table.primary_key] for key, record in table.records.items())
        tables[name] = {
            "primary_key": table.primary_key,
            "schema": schema,
            "records": list(table.records.values()),
            "next_key": table._next_pk,
        }
    return tables


def snapshot(affected, db):
    # Through text, as the records go on changing in place.
    return json.dumps({"affected": affected, "tables": held(db)})


full, *deltas = sys.argv[1:]
db = DictDB.load(full, "json")
stages = [snapshot(0, db)]
for delta in deltas:
    stages.append(snapshot(apply_delta(db, delta), db))
sys.stdout.write("[" + ",\n".join(stages) + "]\n")
