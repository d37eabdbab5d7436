-- wrk -s post.lua URL -- BODY_FILE SAMPLE_FILE [NAME VALUE]...
-- Posts one body; writes every 50th answer to SAMPLE_FILE and the figures as JSON to stdout.

local samples
local seen = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  samples = assert(io.open(args[2], "wb"))
  for i = 3, #args, 2 do
    wrk.headers[args[i]] = args[i + 1]
  end
end

function response(status, headers, body)
  seen = seen + 1
  if seen % 50 == 1 then
    samples:write(status, " ", #body, "\n", body)
    samples:flush()
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"answers": %d, "seconds": %f, "failed": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
