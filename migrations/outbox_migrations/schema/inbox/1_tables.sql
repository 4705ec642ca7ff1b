-- The inbox: one row for each message whose effects have been committed.

CREATE TABLE inbox.processed (
    message_id   text PRIMARY KEY,
    task         text NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    result       json
);
-- Old rows are purged by age. Not brin: its ranges never narrow again once purged space is
-- reused.
CREATE INDEX processed_at ON inbox.processed (processed_at);

CREATE FUNCTION inbox.version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';

COMMENT ON SCHEMA inbox IS
    'Which messages have already had their effects, so that a redelivery has none.';
COMMENT ON TABLE inbox.processed IS
    'One row per message processed, committed together with its effects.';
COMMENT ON COLUMN inbox.processed.message_id IS
    'The Celery task id, or the key the task chose.';
COMMENT ON COLUMN inbox.processed.task IS 'The task that processed it.';
COMMENT ON COLUMN inbox.processed.processed_at IS
    'When its transaction began, by the clock of this server.';
COMMENT ON COLUMN inbox.processed.result IS
    'What the first run returned; a duplicate returns it again.';
COMMENT ON FUNCTION inbox.version IS 'The version of this schema that workers ask for.';
