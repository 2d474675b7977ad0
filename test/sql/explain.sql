-- Conditions taken apart, users explained.
\pset null '~'

-- What a condition is made of: each part before its own parts.
SELECT t.* FROM quota_internal.condition_tree('match-user("a,b(c)", "d""e)") or (is-vip(+07) and not true())') t;
SELECT c, t.node, t.parent, t.depth, t.kind, t.function, t.arguments, t.calls
FROM unnest(ARRAY['true()', 'or-else(x, 1.50)', 'not(not is-vip(-1))', 'and(true(), or(true(), false(), true()), not(not(true())))', 'match-user("and(", ")", "")']) c,
	quota_internal.condition_tree(c) t;
-- Each part is a condition as it is stored, and together they are the whole.
SELECT t.text FROM quota_internal.condition_tree('is-vip(1) and belong-to("a", "b,c") and not(is-vip(2) or match-user(")", "(", ","))') t
WHERE t.text <> t.text::quota_manager.condition::text;
SELECT c FROM unnest(ARRAY['is-vip(1) and belong-to("a", "b,c") and not(is-vip(2) or true())', 'match-user(")", "(", ",") or is-vip(-1)']::quota_manager.condition[]) c
WHERE c::text <> (SELECT format('%s(%s)', min(w.kind), string_agg(p.text, ', ' ORDER BY p.node))
	FROM quota_internal.condition_tree(c) w JOIN quota_internal.condition_tree(c) p ON p.parent = w.node WHERE w.parent IS NULL);
-- As deep and as long as can be.
SELECT count(*), max(t.depth), max(t.calls), sum(length(t.text)) FROM quota_internal.condition_tree(repeat('not(', 499) || 'true()' || repeat(')', 499)) t;
SELECT count(*), max(t.depth), max(t.calls) FROM quota_internal.condition_tree('or(' || repeat('true(), ', 8000) || 'true())') t;
SELECT count(*) FROM quota_internal.condition_tree(NULL);

-- Times as conditions read them.
SELECT t, quota_internal.condition_time(t) AT TIME ZONE 'UTC' FROM unnest(ARRAY['2024-06-01 00:00:00', '2024-06-01T08:00:00.5+08:00', '2024-06-01T00:00:00+23:59', '2024-02-30 00:00:00',
	'now', '', NULL]) t;
