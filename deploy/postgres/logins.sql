-- Run once, when the database of deploy/compose.yaml is made: a login for each program, with the role
-- that `outbox-migrate grant` fills. The passwords are for a database that only this machine reaches.
CREATE ROLE outbox_producer NOLOGIN;
CREATE ROLE outbox_relay NOLOGIN;
CREATE ROLE inbox_worker NOLOGIN;
CREATE ROLE outbox_viewer NOLOGIN;
CREATE ROLE outbox_reader NOLOGIN;
CREATE ROLE outbox_operator NOLOGIN;

CREATE ROLE relay LOGIN PASSWORD 'relay' IN ROLE outbox_relay;
GRANT pg_read_all_stats TO relay;  -- to tell how old the horizon is

-- Of these it takes one for each page: the role of the person it is for.
CREATE ROLE console LOGIN PASSWORD 'console' IN ROLE outbox_viewer, outbox_reader, outbox_operator;

CREATE ROLE shop LOGIN PASSWORD 'shop' IN ROLE outbox_producer, inbox_worker;
GRANT CREATE ON DATABASE shop TO shop;
CREATE SCHEMA shop AUTHORIZATION shop;
