-- The event log of standalone: topics cut into partitions, each an ordered list of records.
--
-- An offset is taken under the lock of the partition's row, which is held until the commit. So offsets become visible
-- in their order and a reader that has seen offset n will never find a smaller one later. A sequence would not do:
-- it hands out numbers before the commit, and a reader that passed a number loses the record that commits late.

CREATE TABLE partition (
  topic text NOT NULL,
  partition integer NOT NULL,
  -- The offset that the next record gets.
  next_offset bigint NOT NULL DEFAULT 0,
  -- The last heartbeat, and the offset of the record it stands before.
  heartbeat_at timestamptz,
  heartbeat_offset bigint,
  -- Up to which offset superseded records were removed (compacted topics).
  compacted_to bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50); -- The few rows change all the time; the room lets them change in place.

CREATE TABLE record (
  topic text NOT NULL,
  partition integer NOT NULL,
  "offset" bigint NOT NULL,
  key text NOT NULL,
  headers jsonb NOT NULL,
  value bytea NOT NULL,
  appended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  compacted boolean NOT NULL,
  PRIMARY KEY (topic, partition, "offset")
);

-- Finds what a newer record supersedes; topics that keep everything don't pay for it.
CREATE INDEX record_by_key ON record (topic, partition, key, "offset") WHERE compacted;

-- Positions of groups. Of a group whose handlers keep their own it is a note: retention waits for it, nobody reads on from it.
CREATE TABLE group_offset (
  group_name text NOT NULL,
  topic text NOT NULL,
  partition integer NOT NULL,
  next_offset bigint NOT NULL,
  PRIMARY KEY (group_name, topic, partition)
) WITH (fillfactor = 50);

-- Appends records, given as parallel arrays, in the order of the arrays.
CREATE FUNCTION append_records(
  topics text[], partitions integer[], keys text[], headers jsonb[], payloads bytea[], compacted boolean[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  appended bigint;
BEGIN
  -- Publishers are told "durable": a server that answers before it has flushed is overruled.
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;

  -- Every writer locks in this order, so writers never wait for each other in a circle.
  PERFORM FROM partition p
   WHERE (p.topic, p.partition) IN (SELECT * FROM unnest(topics, partitions))
   ORDER BY p.topic, p.partition
     FOR UPDATE;

  INSERT INTO record (topic, partition, "offset", key, headers, value, compacted)
  SELECT i.topic, i.partition,
         p.next_offset - 1 + row_number() OVER (PARTITION BY i.topic, i.partition ORDER BY i.place),
         i.key, i.headers, i.payload, i.compacted
    FROM unnest(topics, partitions, keys, headers, payloads, compacted)
         WITH ORDINALITY AS i(topic, partition, key, headers, payload, compacted, place)
    JOIN partition p ON p.topic = i.topic AND p.partition = i.partition;
  GET DIAGNOSTICS appended = ROW_COUNT;
  IF appended <> cardinality(topics) THEN
    RAISE EXCEPTION '% of % records name a partition that does not exist', cardinality(topics) - appended, cardinality(topics);
  END IF;

  UPDATE partition p SET next_offset = p.next_offset + n.added
    FROM (SELECT topic, partition, count(*) AS added
            FROM unnest(topics, partitions) AS i(topic, partition) GROUP BY topic, partition) n
   WHERE p.topic = n.topic AND p.partition = n.partition;
END $$;

-- Puts a heartbeat behind the last record of every partition of a topic.
CREATE FUNCTION append_heartbeat(of_topic text, issued_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM partition p WHERE p.topic = of_topic ORDER BY p.partition FOR UPDATE;
  UPDATE partition SET heartbeat_at = issued_at, heartbeat_offset = next_offset WHERE topic = of_topic;
  -- A heartbeat lost in a crash is followed by the next one: it isn't worth a flush to disk each second.
  PERFORM set_config('synchronous_commit', 'off', true);
END $$;

GRANT SELECT, INSERT, UPDATE ON partition, group_offset TO licet_system;
GRANT SELECT, INSERT, DELETE ON record TO licet_system;
