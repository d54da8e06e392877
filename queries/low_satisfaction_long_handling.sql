-- name: low_satisfaction_long_handling
-- description: Tickets that stayed open for long and whose customer was dissatisfied (satisfaction score 0).
-- param since: timestamp = now() - interval '30 days' -- tickets changed at or after this time
-- param max_score: double = 0 -- highest score that counts as low: the source scores 0 (dissatisfied) or 1 (satisfied)
-- param min_open: interval = interval '24 hours' -- time open, over all the ticket's reopenings
-- max_age: 1d

-- Low scores after quick answers tell of the product; low scores after long handling tell of the handling. Only the
-- second kind is for QA to read. The rating is on the survey's own scale, so it orders the list and filters nothing.
SELECT
    ticket_id,
    satisfaction_score,
    satisfaction_rating,
    round(total_open_ms / 3600000.0, 1) AS hours_open,
    message_count,
    reopen_count,
    tag_names(tag_ids) AS tags,
    user_name(assigned_user_ids[1]) AS agent
FROM tickets
WHERE updated_at >= $since
  AND satisfaction_score <= $max_score
  AND total_open_ms >= date_part('epoch', $min_open) * 1000
ORDER BY satisfaction_score, satisfaction_rating NULLS LAST, total_open_ms DESC, ticket_id
