-- A function runs for everyone unless this is said; outbox-migrate grant gives each role its own.

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.version, outbox.by_index, outbox.short_repr, outbox.workless,
    outbox.bell, outbox.ring
    TO PUBLIC;
