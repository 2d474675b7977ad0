-- What the delivery worker sends, to the zgsm dialect of the mock gateway.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.headers["x-admin-key"] = os.getenv("BENCH_KEY")

local n = 0
local tag = ""

function setup(thread)
	thread:set("tag", tostring(thread))
end

function request()
	n = n + 1
	wrk.headers["Idempotency-Key"] = tag .. n
	return wrk.format(nil, "/v1/chat/completions/quota/delta", nil, "user_id=user" .. n % 20000 .. "&value=1")
end

function done(summary, latency, requests)
	io.write(string.format("wrk_rate %d\nwrk_errors %d\n", summary.requests / summary.duration * 1e6,
		summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
