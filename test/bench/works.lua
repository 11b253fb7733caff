-- The works, in the order they are run. A later issue adds a row here, and where it needs another configuration, a proxy in
-- proxies.lua.
--   name, title
--   figure     what is measured (figures.lua)
--   load       options of the load generator, --NAME VALUE
--   proxies    default: moongate, nginx, haproxy; the first is the one that is judged
--   bars       the most that the first proxy's figure may be, as a multiple of another proxy's
--   most       the most that it may be by itself, in the figure's unit
--   most_notes the same for what the figure notes beside it, by name
--   others     more options of a figure
--   group      `--only` may name it for all of its works, which are run only then
local works = {
  { name = "small", title = "128 B, keep-alive, 64 connections", figure = "cpu",
    load = { connections = 64, response = 128 },
    bars = { nginx = 0.80, haproxy = 0.78 } },

  { name = "browser", title = "the same, 20 request fields", figure = "cpu",
    load = { connections = 64, response = 128, headers = "browser" },
    bars = { nginx = 0.85, haproxy = 0.85 } },

  { name = "connect", title = "128 B, a new connection each", figure = "cpu",
    load = { connections = 64, response = 128, close = 1 },
    bars = { nginx = 0.90 } },

  { name = "64k", title = "64 KiB responses", figure = "cpu",
    load = { connections = 64, response = 65536 },
    bars = { haproxy = 0.50 } },

  { name = "1m", title = "1 MiB responses", figure = "cpu",
    load = { connections = 16, response = 1048576 },
    bars = { haproxy = 0.45 } },

  { name = "upload", title = "1 MiB uploads", figure = "cpu",
    load = { connections = 16, response = 128, upload = 1048576 },
    bars = { haproxy = 0.55 } },

  { name = "p99", title = "p99 at 70 % of nginx's peak rate", figure = "latency",
    load = { connections = 256, response = 128 },
    others = { peak_of = "nginx", share = 0.7, closed = { connections = 64, response = 128 } },
    bars = { nginx = 1.0 } },

  { name = "workers", title = "two workers on the one core", figure = "cpu",
    load = { connections = 64, response = 128 },
    proxies = { "moongate-2", "moongate" },
    bars = { moongate = 1.05 } },

  { name = "idle", title = "8,000 idle connections", figure = "idle",
    load = { connections = 8000, response = 128 },
    most = 768 },

  { name = "drip", title = "p99 beside 1,000 clients, a byte a second", figure = "slow",
    load = { connections = 64, response = 128, rate = 5000 },
    others = { crowd = { mode = "drip", connections = 1000 } },
    most = 1.5, most_notes = { bytes_each = 131072 } },

  { name = "deaf", title = "p99 beside 1,000 clients that never read", figure = "slow",
    load = { connections = 64, response = 128, rate = 5000 },
    others = { crowd = { mode = "deaf", connections = 1000, response = 4194304 } },
    most = 1.5, most_notes = { bytes_each = 131072 } },

  { name = "tls", title = "TLS 1.3: 128 B, keep-alive", figure = "cpu",
    load = { connections = 64, response = 128, tls = "full" },
    proxies = { "moongate-tls", "nginx-tls", "haproxy-tls" },
    bars = { ["nginx-tls"] = 0.85 } },

  { name = "tls-connect", title = "TLS 1.3: a new connection each, ECDSA P-256", figure = "cpu",
    load = { connections = 64, response = 128, close = 1, tls = "full" },
    proxies = { "moongate-tls-bare", "nginx-tls-bare", "haproxy-tls" },
    bars = { ["nginx-tls-bare"] = 1.0 } },

  { name = "tls-resume", title = "TLS 1.3: a new connection each, by ticket", figure = "cpu",
    load = { connections = 64, response = 128, close = 1, tls = "resume" },
    proxies = { "moongate-tls", "nginx-tls", "haproxy-tls" },
    bars = { ["nginx-tls"] = 1.0 } },

  { name = "tls-1m", title = "TLS 1.3: 1 MiB responses", figure = "cpu",
    load = { connections = 16, response = 1048576, tls = "full" },
    proxies = { "moongate-tls", "nginx-tls", "haproxy-tls" },
    bars = { ["nginx-tls"] = 0.9 } },

  { name = "tls-idle", title = "5,000 idle TLS connections", figure = "idle",
    load = { connections = 5000, response = 128, tls = "full" },
    proxies = { "moongate-tls", "nginx-tls", "haproxy-tls" },
    bars = { ["nginx-tls"] = 1.0 }, most = 16384 },

  { name = "tls-workers", title = "TLS 1.3: two workers shake hands on the one core", figure = "cpu",
    load = { connections = 64, response = 128, close = 1, tls = "full" },
    proxies = { "moongate-tls-2", "moongate-tls-bare" },
    bars = { ["moongate-tls-bare"] = 1.1 } },

  { name = "h2", title = "HTTP/2 in clear, 8 connections x 10 streams", figure = "h2",
    load = { connections = 8, streams = 10, response = 128, rate = 20000 },
    proxies = { "moongate", "nginx-h2", "haproxy-h2", "h2o" },
    bars = { ["nginx-h2"] = 0.65, ["haproxy-h2"] = 1.0, h2o = 1.0 } },

  { name = "h2-tls", title = "HTTP/2 over TLS, 8 connections x 10 streams", figure = "h2",
    load = { connections = 8, streams = 10, response = 128, rate = 20000, tls = true },
    proxies = { "moongate-tls", "nginx-h2-tls", "haproxy-h2-tls", "h2o-tls" },
    bars = { ["haproxy-h2-tls"] = 1.0, ["h2o-tls"] = 1.0 } },

  { name = "h2-idle", title = "5,000 idle HTTP/2 connections in clear", figure = "idle",
    load = { connections = 5000, response = 128, protocol = "h2" },
    proxies = { "moongate", "nginx-h2", "haproxy-h2" } },

  { name = "h2-tls-idle", title = "5,000 idle HTTP/2 connections over TLS", figure = "idle",
    load = { connections = 5000, response = 128, tls = "full", protocol = "h2" },
    proxies = { "moongate-tls", "nginx-h2-tls", "haproxy-h2-tls" },
    bars = { ["nginx-h2-tls"] = 1.0 }, most = 32768 },

  { name = "grpc", title = "gRPC, both ways, 1 KiB messages, 4 connections x 8 streams", figure = "grpc",
    load = { connections = 4, streams = 8, message = 1024, rate = 20000 },
    proxies = { "moongate-grpc", "nghttpx" },
    bars = { nghttpx = 1.0 } },

  { name = "h2-h2", title = "HTTP/2 in clear to an HTTP/2 backend, 8 connections x 10 streams", figure = "h2",
    load = { connections = 8, streams = 10, response = 128, rate = 20000 },
    proxies = { "moongate-h2-h2", "haproxy-h2-h2", "nghttpx-h2-h2" } },

  { name = "h1-h2", title = "128 B, keep-alive, to an HTTP/2 backend", figure = "cpu",
    load = { connections = 64, response = 128 },
    proxies = { "moongate-h2-h2", "haproxy-h1-h2" } },

  { name = "log", title = "the same as small, with an access log in JSON", figure = "cpu",
    load = { connections = 64, response = 128 },
    proxies = { "moongate-log", "nginx-log", "nginx-log-buffered" },
    bars = { ["nginx-log"] = 0.90, ["nginx-log-buffered"] = 1.0 } },

  { name = "lua", title = "key check, shared counter, two header edits", figure = "cpu",
    load = { connections = 64, response = 128, headers = "key" },
    proxies = { "moongate-lua", "nginx-lua" },
    bars = { ["nginx-lua"] = 0.65 } },

  { name = "lua-empty", title = "an empty access", figure = "cpu",
    load = { connections = 64, response = 128 },
    proxies = { "moongate-empty", "moongate" } },

  { name = "lua-body", title = "64 KiB responses through Lua", figure = "cpu",
    load = { connections = 64, response = 65536 },
    proxies = { "moongate-lua-body", "nginx-lua-body" },
    bars = { ["nginx-lua-body"] = 0.8 } },

  { name = "tcp-1m", title = "TCP relay, 1 MiB transfers", figure = "cpu",
    load = { connections = 16, response = 1048576 },
    proxies = { "moongate-tcp", "haproxy-tcp" },
    bars = { ["haproxy-tcp"] = 0.42 } },

  { name = "tcp-small", title = "TCP relay, 128 B and back", figure = "cpu",
    load = { connections = 64, response = 128 },
    proxies = { "moongate-tcp", "haproxy-tcp" } },

  { name = "tcp-connect", title = "TCP relay, a new connection each", figure = "cpu",
    load = { connections = 64, response = 128, close = 1 },
    proxies = { "moongate-tcp", "haproxy-tcp" } },

  { name = "poll", title = "loops: relay of 128 B", figure = "cpu",
    load = { connections = 64, response = 128 },
    proxies = { "poll-outer", "poll-epoll", "poll-nested", "poll-uv" } },

  { name = "poll-1m", title = "loops: relay of 1 MiB, full sockets", figure = "cpu",
    load = { connections = 16, response = 1048576 },
    proxies = { "poll-outer", "poll-epoll", "poll-nested", "poll-uv" } },
}

-- Attacks by HTTP/2: name, the rate of its steps a second, connections, what a step is. Rates are what one machine may send
-- without effort; where a step is long, bytes are what bounds it.
local attacks = {
  { "innocent", 4000, 10, "no attack: as many requests, for comparison" },
  { "resets", 4000, 10, "A40: HEADERS and RST_STREAM" },
  { "continuations", 4000, 10, "A41: empty CONTINUATION frames" },
  { "continuation-fields", 2000, 10, "A41: CONTINUATION frames of 1 KiB" },
  { "provocations", 4000, 10, "A42: what makes us reset a stream, by turns" },
  { "bomb", 200, 10, "A43: 16,000 references of a byte to a long field" },
  { "bomb-drip", 2000, 10, "A43: references within bounds, windows of a byte" },
  { "bomb-small", 2000, 10, "A43: a reference each, windows of a byte" },
  { "settings", 4000, 10, "A44: SETTINGS" },
  { "pings", 4000, 10, "A44: PING" },
  { "pings-deaf", 4000, 10, "A44: PING, no answer read" },
  { "pongs", 4000, 10, "A44: answers to no PING" },
  { "priorities", 4000, 10, "A44: PRIORITY" },
  { "windows", 4000, 10, "A44: WINDOW_UPDATE" },
  { "unknowns", 4000, 10, "A44: frames of an unknown kind" },
  { "empty-data", 4000, 10, "A44: DATA without data" },
  { "padding", 4000, 10, "A44: DATA of padding alone" },
  { "stall", 400, 4, "A45: responses of 10 MiB, no window" },
  { "window-drip", 2000, 4, "A45: the same, windows of a byte" },
  { "deaf", 400, 4, "A45: the same, all windows, nothing read" },
}
for _, attack in ipairs(attacks) do
  local is_attack = attack[1] ~= "innocent"
  works[#works + 1] = { name = "h2-" .. attack[1], title = "p99 beside " .. attack[4], figure = "attack", group = "h2-attacks",
    load = { connections = 64, response = 128, rate = 5000 }, proxies = { "moongate" },
    others = { crowd = { mode = "attack", attack = attack[1], rate = attack[2], connections = attack[3] } },
    most = is_attack and 2 or nil, most_notes = is_attack and { held_share = 1 } or nil }
end

return works
