-- name: tagged
-- description: Tickets by the names of their tags: all of some, any of some, none of some.
-- param all_of: text[] = [] -- every one of these tags
-- param any_of: text[] = [] -- at least one of these; an empty list asks nothing
-- param none_of: text[] = [] -- not one of these
-- param since: timestamp = now() - interval '30 days' -- tickets changed at or after this time
-- max_age: 1d

-- Names are turned into ids once, and the ids are compared: a tag that was renamed is found by its name of today. A name
-- that no tag has can stand on no ticket, so that `all_of` and `any_of` with it find nothing.
WITH ids AS (
    SELECT
        coalesce(array_agg(tag_id) FILTER (WHERE array_has($all_of, name)), []) AS all_ids,
        coalesce(array_agg(tag_id) FILTER (WHERE array_has($any_of, name)), []) AS any_ids,
        coalesce(array_agg(tag_id) FILTER (WHERE array_has($none_of, name)), []) AS none_ids,
        count(DISTINCT name) FILTER (WHERE array_has($all_of, name)) AS all_found
    FROM tags
)
SELECT
    tickets.ticket_id,
    tag_names(tickets.tag_ids) AS tags,
    tickets.status,
    queue_name(tickets.queue_id) AS queue,
    tickets.updated_at
FROM tickets
CROSS JOIN ids
WHERE tickets.updated_at >= $since
  AND ids.all_found = array_length(array_distinct($all_of))
  AND array_has_all(coalesce(tickets.tag_ids, []), ids.all_ids)
  AND (array_length($any_of) = 0 OR array_has_any(coalesce(tickets.tag_ids, []), ids.any_ids))
  AND NOT array_has_any(coalesce(tickets.tag_ids, []), ids.none_ids)
ORDER BY tickets.updated_at DESC, tickets.ticket_id
