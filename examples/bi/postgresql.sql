-- Views on the table that `options.copy_to` keeps, for a BI tool that reads PostgreSQL. The table has each campaign's
-- newest messages; its name is that of the SQL table block.

-- In which run customers got the message that they have now.
CREATE OR REPLACE VIEW message_runs AS
SELECT
    campaign_id,
    run_number,
    count(*) AS customers,
    round(avg(length(message))) AS characters,
    max(written_at) AS written_at
FROM nudgescribe_messages
GROUP BY campaign_id, run_number;

-- Who got a message, and when, for people who may not read it: grant them this view and not the table.
CREATE OR REPLACE VIEW customers_reached AS
SELECT campaign_id, customer_id, run_number, written_at
FROM nudgescribe_messages;

-- The messages that the newest run changed.
CREATE OR REPLACE VIEW messages_changed AS
SELECT campaign_id, customer_id, message
FROM nudgescribe_messages AS messages
WHERE run_number = (
    SELECT max(run_number) FROM nudgescribe_messages
    WHERE campaign_id = messages.campaign_id
);
