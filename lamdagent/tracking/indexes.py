"""Two indexes that MLflow lacks: whether an action was done, and what is new, take as long in any store.

Without them a database looks at every run for each such question. MLflow and its migrations do not mind them.
"""

import logging

log = logging.getLogger(__name__)

INDEXES = (
    "lamdagent_fingerprints ON tags (value) WHERE key = 'lamdagent.fingerprint'",
    "lamdagent_runs ON runs (experiment_id, start_time)",
)
PATIENCE_S = 5
"""How long another program may hold the tables; then the next start makes the indexes."""


def ensure_indexes(uri: str) -> bool:
    """Whether an SQLite or PostgreSQL store has our indexes, and an SQLite file statistics.

    What is missing is made.

    Without statistics SQLite plans a sort by a metric over 100,000 runs so badly that it takes over eight minutes, with
    them under a second. A sample of them costs 10 ms however large the file. What is connected already goes on with
    older ones.

    Stores work without, only slower: nothing happens where this user may not, the tables are not there yet, or another
    process does it just now.
    """
    sqlite = uri.startswith("sqlite")
    statements = [f"CREATE INDEX IF NOT EXISTS {index}" for index in INDEXES]
    if sqlite:
        statements += ["PRAGMA analysis_limit=1000", "ANALYZE"]
    if not uri.startswith(("sqlite", "postgresql")):
        return True
    import sqlalchemy

    patience = {"timeout": PATIENCE_S} if sqlite else {}
    engine = sqlalchemy.create_engine(uri, connect_args=patience, poolclass=sqlalchemy.pool.NullPool)
    try:
        with engine.begin() as connection:
            if not sqlite:
                connection.exec_driver_sql(f"SET lock_timeout = '{PATIENCE_S}s'")
            for statement in statements:
                connection.exec_driver_sql(statement)
    except sqlalchemy.exc.DBAPIError as error:
        log.info("Not tuned yet: %s", error.orig)
        return False
    return True
