-- name: tag_co_occurrence
-- description: Pairs of tags that stand on the same tickets, with how much more often than by chance.
-- param since: timestamp = now() - interval '30 days' -- tickets created at or after this time
-- param min_tickets: int = 10 -- rarer pairs are noise
-- max_age: 1d

-- Lift is the pair's frequency over the product of the two tags' frequencies: 1 means chance, 3 means three times as
-- often. It finds pairs that mean one thing, which is what a clean tag list should not have.
WITH tagged AS (
    SELECT DISTINCT ticket_id, tag_id
    FROM (
        SELECT ticket_id, unnest(tag_ids) AS tag_id
        FROM tickets
        WHERE created_at >= $since
    ) AS unnested
),
single AS (
    SELECT tag_id, count(*) AS tickets FROM tagged GROUP BY tag_id
),
total AS (
    SELECT count(*) AS tickets FROM tickets WHERE created_at >= $since
),
pairs AS (
    SELECT a.tag_id AS tag_a, b.tag_id AS tag_b, count(*) AS tickets
    FROM tagged AS a
    JOIN tagged AS b ON a.ticket_id = b.ticket_id AND a.tag_id < b.tag_id
    GROUP BY a.tag_id, b.tag_id
)
SELECT
    coalesce(names_a.name, pairs.tag_a) AS first_tag,
    coalesce(names_b.name, pairs.tag_b) AS second_tag,
    pairs.tickets,
    round(CAST(pairs.tickets AS double) * total.tickets / (single_a.tickets * single_b.tickets), 2) AS lift
FROM pairs
JOIN single AS single_a ON single_a.tag_id = pairs.tag_a
JOIN single AS single_b ON single_b.tag_id = pairs.tag_b
CROSS JOIN total
LEFT JOIN tags AS names_a ON names_a.tag_id = pairs.tag_a
LEFT JOIN tags AS names_b ON names_b.tag_id = pairs.tag_b
WHERE pairs.tickets >= $min_tickets
ORDER BY lift DESC, pairs.tickets DESC, first_tag, second_tag
