-- Makes half of a task's transaction impossible to commit.
--
-- Which message's task is at work is a setting of its transaction alone, celery_inbox.running: it
-- ends with the transaction, and a savepoint that is rolled back puts it back to what it was. Rows
-- that nobody claimed with it (a restored dump, replication, workers before this version) are let
-- pass. 2DI01 is of the class "invalid transaction termination", in the part left to
-- implementations.

CREATE FUNCTION inbox.refuse_half() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('celery_inbox.running', true) = NEW.message_id THEN
        RAISE EXCEPTION USING
            ERRCODE = '2DI01',
            MESSAGE = 'an @idempotent task may not commit before it ends',
            DETAIL = 'The message would count as processed with a part of its effects.',
            HINT = 'Leave the commit to @idempotent; give it a connection that is not in'
                   ' autocommit; do not use SET CONSTRAINTS ALL IMMEDIATE.';
    END IF;
    RETURN NULL;
END $$;

-- Asked at every COMMIT, whoever sends it; ALWAYS: with session_replication_role = replica, too.
CREATE CONSTRAINT TRIGGER whole AFTER INSERT ON inbox.processed
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_setting('celery_inbox.running', true) = NEW.message_id)
    EXECUTE FUNCTION inbox.refuse_half();
ALTER TABLE inbox.processed ENABLE ALWAYS TRIGGER whole;

-- A function, so that the COMMIT may follow it unread: where it fails, COMMIT rolls back.
CREATE FUNCTION inbox.finish(message_id text, result json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('celery_inbox.running', true) IS DISTINCT FROM finish.message_id THEN
        RAISE EXCEPTION USING
            ERRCODE = '2DI01',
            MESSAGE = 'an @idempotent task has ended its transaction itself',
            DETAIL = 'The transaction that held its inbox row is gone.',
            HINT = 'Leave commit, rollback and close to @idempotent.';
    END IF;
    PERFORM set_config('celery_inbox.running', '', true);
    IF finish.result IS NOT NULL THEN
        UPDATE inbox.processed p SET result = finish.result
         WHERE p.message_id = finish.message_id;
    END IF;
END $$;

COMMENT ON FUNCTION inbox.refuse_half IS
    'Lets no transaction commit in which a task has begun and not ended.';
COMMENT ON FUNCTION inbox.finish IS
    'The last statement of a task''s transaction: keeps its result and allows the commit.';
