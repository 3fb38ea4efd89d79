-- `licet events replay` marks events of the history as pending again.
GRANT INSERT ON outbox_pending TO licet_system;
