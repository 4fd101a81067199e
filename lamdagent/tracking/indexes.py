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


def add_indexes(uri: str) -> bool:
    """Make them where they are missing, in SQLite and PostgreSQL; whether they are there. Stores work without, slower.

    An SQLite file gets fresh statistics, too: without them it plans a sort by a metric over 100,000 runs so badly that
    it takes over eight minutes, with them under a second. A sample of them costs 10 ms however large the file. What is
    connected already goes on with older ones.

    Nothing happens where this user may not, the tables are not there yet, or another process makes them just now.
    """
    if not uri.startswith(("sqlite", "postgresql")):
        return False
    import sqlalchemy

    sqlite = uri.startswith("sqlite")
    patience = {"timeout": PATIENCE_S} if sqlite else {}
    engine = sqlalchemy.create_engine(uri, connect_args=patience, poolclass=sqlalchemy.pool.NullPool)
    statements = [f"CREATE INDEX IF NOT EXISTS {index}" for index in INDEXES]
    if sqlite:
        statements += ["PRAGMA analysis_limit=1000", "ANALYZE"]
    else:
        statements.insert(0, f"SET lock_timeout = '{PATIENCE_S}s'")
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    except sqlalchemy.exc.DBAPIError as error:
        log.info("No indexes yet: %s", error.orig)
        return False
    return True
