"""Loads a full backup and saves it again with the real DictDB 1.11; then changes it and saves the delta.

Usage: save_again.py FULL FULL_AGAIN DELTA FULL_CHANGED
"""

import sys

from dictdb import DictDB
from dictdb.storage.persist import save_delta

full, again, delta, changed = sys.argv[1:]
db = DictDB.load(full, "json")
db.save(again, "json")
for table in db.tables.values():
    table.clear_dirty_tracking()

odd = db.get_table("odd")
odd.insert({"id": 900, "text": "naïve ☃ \U0001f30b", "small": 5e-324, "whole": 2.0, "int": 2, "yes": True})
odd.update({"whole": -0.0}, where=odd.id == 1)
odd.delete(where=odd.id == 2)
# The same key with fewer fields: the delta holds the record as it now is, which apply_delta would merge into the old.
odd.delete(where=odd.id == 3)
odd.insert({"id": 3})
assert save_delta(db, delta)
db.save(changed, "json")
