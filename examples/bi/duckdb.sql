-- Views on the lake for a BI tool that reads DuckDB. LAKE/ stands for the lake's folder; examples/README.md has the
-- command that puts yours in, and makes a database of these views, which holds no rows itself.

-- The runs of each campaign: of a run that was written again, the newest.
CREATE OR REPLACE VIEW runs AS
SELECT campaign_id, run_number, rows AS messages, written_at, generation, parts
FROM read_json(
    'LAKE/messages/*/*/_manifest-*.json',
    columns = {
        campaign_id: 'VARCHAR', run_number: 'BIGINT', generation: 'BIGINT', rows: 'BIGINT',
        written_at: 'TIMESTAMPTZ', parts: 'STRUCT(name VARCHAR)[]'
    }
)
QUALIFY generation = max(generation) OVER (PARTITION BY campaign_id, run_number);

-- Their messages, a row each. Files that no run names are left over from killed exports.
CREATE OR REPLACE VIEW messages AS
SELECT campaign_id, run_number, customer_id, message
FROM read_parquet(
    'LAKE/messages/*/*/part-*.parquet',
    filename = true, hive_types = {campaign_id: VARCHAR, run_number: BIGINT}
) AS rows
SEMI JOIN (SELECT campaign_id, run_number, unnest(parts).name AS name FROM runs) AS parts
    ON rows.campaign_id = parts.campaign_id
    AND rows.run_number = parts.run_number
    AND parse_filename(rows.filename) = parts.name;

-- Who is in which segment, and the text that it got.
CREATE OR REPLACE VIEW customers AS
SELECT campaign_id, run_number, customer_id, segment_id, segment, message AS text, review_status
FROM read_parquet(
    'LAKE/segments/*/*/members-*.parquet',
    hive_types = {campaign_id: VARCHAR, run_number: BIGINT}
) AS members
JOIN read_parquet(
    'LAKE/segments/*/*/segments-*.parquet',
    hive_types = {campaign_id: VARCHAR, run_number: BIGINT}
) AS segments USING (campaign_id, run_number, segment_id);

-- What each flow run came to, and from the first change on, whom it changed.
CREATE OR REPLACE VIEW refreshes AS
SELECT *
FROM read_parquet(
    'LAKE/sync_runs/*/*.parquet',
    union_by_name = true, hive_types = {campaign_id: VARCHAR}
);

CREATE OR REPLACE VIEW changes AS
SELECT *
FROM read_parquet(
    'LAKE/sync_changes/*/*.parquet',
    union_by_name = true, hive_types = {campaign_id: VARCHAR}
);

-- For a chart: customers of each segment, run by run.
CREATE OR REPLACE VIEW segment_sizes AS
SELECT campaign_id, run_number, segment, text, count(*) AS customers
FROM customers
GROUP BY ALL;
