-- The proxies under test: how each is configured, started and named. All do the same least work: forward to one backend over
-- kept connections, no log. Nothing else is tuned; what is raised are bounds that a run would hit.
-- Each: needs (a program), version (a command whose first line is printed), files(at) -> name, text; command(at).
-- `at` = { dir, port, backend, build, binary }.
local process = require "process"

local proxies = {}

local function moongate(workers)
  return {
    needs = os.getenv "MOONGATE_BIN",
    version = '"$MOONGATE_BIN" version',
    file = "gateway.lua",
    text = [[
local moongate = require "moongate"
moongate.listener { port = $port, address = "127.0.0.1" }
moongate.upstream { name = "backend", endpoints = { "127.0.0.1:$backend" } }
moongate.route { path = "/", backends = "backend" }
]],
    command = { "env", "MOONGATE_ADMIN=$dir/admin.sock", "$binary", "run", "$dir/gateway.lua", "--workers", workers },
  }
end

proxies.moongate = moongate(1)
proxies["moongate-2"] = moongate(2) -- two workers on the one core

-- ---- with scripts: the same logic in Moongate and in nginx's Lua module, each as its users would write it

local function scripted(keys)
  local own = moongate(1)
  own.text = own.text:gsub('moongate%.route.-\n$', function()
    return 'moongate.route { path = "/", backends = "backend",\n' .. keys .. "}\n"
  end)
  return own
end

local lua_keys = [[
  access = function(exchange)
    local headers = exchange.request.headers
    local key = headers["x-api-key"]
    local consumer = key and keys[key]
    if not consumer then return exchange:respond(401, "who are you?\n") end
    counters:incr(consumer, 1, 0)
    headers["x-consumer"] = consumer
  end,
  header_filter = function(exchange)
    exchange.response.headers["x-served-by"] = "gateway"
  end,
]]
proxies["moongate-lua"] = scripted(lua_keys)
proxies["moongate-lua"].text = [[
local keys = { ["3f6c1f0f9a7d4b5e"] = "acme" }
local counters = require "moongate".shared("counters", { size = 1048576 })
]] .. proxies["moongate-lua"].text
proxies["moongate-empty"] = scripted "  access = function(exchange) end,\n"
proxies["moongate-lua-body"] = scripted [[
  body_filter = function(exchange)
    local response = exchange.response
    for chunk in response:chunks() do response:write(chunk) end
  end,
]]

proxies.nginx = {
  needs = "nginx",
  package = "nginx-light",
  version = "nginx -v 2>&1",
  file = "nginx.conf",
  text = [[
daemon off; master_process off; worker_processes 1;
pid $dir/nginx.pid; error_log stderr crit;
events { worker_connections 9500; }
http {
  access_log off; client_max_body_size 0; keepalive_requests 1000000000;
  client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
  uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
  upstream backend { server 127.0.0.1:$backend; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$port;
    location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
]],
  command = { "nginx", "-c", "$dir/nginx.conf", "-e", "stderr" },
}

-- ---- with an access log in JSON: the fields that the gateway writes as shipped, as far as nginx knows them

proxies["moongate-log"] = moongate(1)
proxies["moongate-log"].text = proxies["moongate-log"].text ..
  'moongate.settings { access_log = { file = "$dir/access.log" } }\n'

local function nginx_log(buffering)
  local own = {}
  for key, value in pairs(proxies.nginx) do own[key] = value end
  own.text = own.text:gsub("access_log off;", function()
    return [[
log_format line escape=json '{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method","host":"$host",'
    '"path":"$uri","query":"$args","protocol":"$server_protocol","status":$status,"request_bytes":$request_length,'
    '"response_bytes":$body_bytes_sent,"duration":$request_time,"upstream":"$proxy_host","endpoint":"$upstream_addr",'
    '"upstream_duration":"$upstream_response_time","id":"$request_id"}';
  access_log $dir/access.log line ]] .. buffering .. ";"
  end)
  return own
end

proxies["nginx-log"] = nginx_log ""
proxies["nginx-log-buffered"] = nginx_log "buffer=64k flush=1s"

local function nginx_lua(http, location)
  local own = {}
  for key, value in pairs(proxies.nginx) do own[key] = value end
  own.package = "libnginx-mod-http-lua"
  own.text = [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
]] .. own.text:gsub("upstream backend", function() return http .. "\n  upstream backend" end)
    :gsub("location / {", function() return "location / {\n" .. location end)
  return own
end

proxies["nginx-lua"] = nginx_lua([[
  lua_shared_dict counters 1m;
  init_by_lua_block { keys = { ["3f6c1f0f9a7d4b5e"] = "acme" } }
]], [[
      access_by_lua_block {
        local key = ngx.var.http_x_api_key
        local consumer = key and keys[key]
        if not consumer then ngx.status = 401 ngx.say("who are you?") return ngx.exit(401) end
        ngx.shared.counters:incr(consumer, 1, 0)
        ngx.req.set_header("X-Consumer", consumer)
      }
      header_filter_by_lua_block { ngx.header["X-Served-By"] = "gateway" }
]])
proxies["nginx-lua-body"] = nginx_lua("", [[
      header_filter_by_lua_block { ngx.header.content_length = nil }
      body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1] }
]])

proxies.haproxy = {
  needs = "haproxy",
  package = "haproxy",
  version = "haproxy -v",
  file = "haproxy.cfg",
  text = [[
global
  nbthread 1
  maxconn 9500
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:$port
  default_backend backend
backend backend
  server one 127.0.0.1:$backend
]],
  command = { "haproxy", "-q", "-f", "$dir/haproxy.cfg" },
}

-- ---- with TLS: one certificate for ECDSA P-256. "bare": no tickets

local CERTIFICATE = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench.example " ..
  "-addext subjectAltName=DNS:bench.example -keyout '$dir/site.key' -out '$dir/site.crt' 2>/dev/null && " ..
  "cat '$dir/site.crt' '$dir/site.key' > '$dir/site.pem'"

local function with_tls(own, edit)
  local out = {}
  for key, value in pairs(own) do out[key] = value end
  out.prepare = CERTIFICATE
  out.text = edit(out.text)
  return out
end

local function moongate_tls(workers, more)
  return with_tls(moongate(workers), function(text)
    return (text:gsub('address = "127.0.0.1" }', function()
      return 'address = "127.0.0.1", protocol = "https",\n  tls = { certificates = { { cert = "site.crt", key = "site.key" } }' ..
        more .. " } }"
    end))
  end)
end

local function nginx_tls(more)
  return with_tls(proxies.nginx, function(text)
    return (text:gsub("listen 127.0.0.1:$port;", function()
      return "listen 127.0.0.1:$port ssl;\n    ssl_certificate $dir/site.crt; ssl_certificate_key $dir/site.key; " ..
        "ssl_protocols TLSv1.2 TLSv1.3; " .. more
    end))
  end)
end

proxies["moongate-tls"] = moongate_tls(1, "")
proxies["moongate-tls-bare"] = moongate_tls(1, ", tickets = false")
proxies["moongate-tls-2"] = moongate_tls(2, ", tickets = false")
proxies["nginx-tls"] = nginx_tls ""
proxies["nginx-tls-bare"] = nginx_tls "ssl_session_tickets off;"
proxies["haproxy-tls"] = with_tls(proxies.haproxy, function(text)
  return (text:gsub("bind 127.0.0.1:$port", "bind 127.0.0.1:$port ssl crt $dir/site.pem"))
end)

-- ---- HTTP/2 of clients

local function edited(own, from, to)
  local out = {}
  for key, value in pairs(own) do out[key] = value end
  out.text = own.text:gsub(from, to)
  return out
end

proxies["nginx-h2"] = edited(proxies.nginx, "listen 127.0.0.1:$port;", "listen 127.0.0.1:$port http2;")
proxies["nginx-h2-tls"] = edited(proxies["nginx-tls"], "listen 127.0.0.1:$port ssl;", "listen 127.0.0.1:$port ssl http2;")
proxies["haproxy-h2"] = edited(proxies.haproxy, "bind 127.0.0.1:$port", "bind 127.0.0.1:$port proto h2")
proxies["haproxy-h2-tls"] = edited(proxies["haproxy-tls"], "crt $dir/site.pem", "crt $dir/site.pem alpn h2,http/1.1")

proxies.h2o = {
  needs = "h2o",
  package = "h2o",
  version = "h2o -v",
  file = "h2o.conf",
  text = [[
num-threads: 1
max-connections: 9500
listen:
  host: 127.0.0.1
  port: $port
hosts:
  default:
    paths:
      /:
        proxy.reverse.url: http://127.0.0.1:$backend/
        proxy.preserve-host: ON
        proxy.timeout.keepalive: 60000
]],
  command = { "h2o", "-m", "worker", "-c", "$dir/h2o.conf" },
}
proxies["h2o-tls"] = with_tls(proxies.h2o, function(text)
  return (text:gsub("  port: $port\n", "  port: $port\n  ssl:\n    certificate-file: $dir/site.crt\n    key-file: $dir/site.key\n"))
end)

-- ---- gRPC: HTTP/2 in clear on both sides; $grpc echoes

proxies["moongate-grpc"] = moongate(1)
proxies["moongate-grpc"].text = [[
local moongate = require "moongate"
moongate.listener { port = $port, address = "127.0.0.1" }
moongate.upstream { name = "echo", endpoints = { "127.0.0.1:$grpc" }, protocol = "http2" }
moongate.route { grpc = { service = "bench.Echo" }, backends = "echo" }
]]

proxies.nghttpx = {
  needs = "nghttpx",
  package = "nghttp2-proxy",
  version = "nghttpx --version",
  file = "nghttpx.conf",
  text = "frontend=127.0.0.1,$port;no-tls\nbackend=127.0.0.1,$grpc;;proto=h2\nworkers=1\nsingle-process=yes\n" ..
    "accesslog-file=/dev/null\nerrorlog-file=/dev/null\nfrontend-http2-max-concurrent-streams=1000\n",
  command = { "nghttpx", "--conf=$dir/nghttpx.conf" },
}

-- ---- HTTP/2 of backends: nghttpd at $other

local function needs_nghttpd(own)
  if not process.has "nghttpd" then own.needs = "nghttpd" end
  return own
end

proxies["moongate-h2-h2"] = needs_nghttpd(edited(proxies.moongate, '127.0.0.1:$backend" }', '127.0.0.1:$other" }, protocol = "http2"'))
proxies["haproxy-h1-h2"] = needs_nghttpd(edited(proxies.haproxy, "127.0.0.1:$backend", "127.0.0.1:$other proto h2"))
proxies["haproxy-h2-h2"] = needs_nghttpd(edited(proxies["haproxy-h2"], "127.0.0.1:$backend", "127.0.0.1:$other proto h2"))
proxies["nghttpx-h2-h2"] = {
  needs = "nghttpx",
  package = "nghttp2-proxy",
  version = "nghttpx --version",
  command = { "nghttpx", "--single-process", "--conf=/dev/null",
    "--workers=1", "--frontend=127.0.0.1,$port;no-tls", "--accesslog-file=/dev/null",
    "--backend=127.0.0.1,$other;;proto=h2" },
}

-- ---- bytes as they are: TCP routes

proxies["moongate-tcp"] = moongate(1)
proxies["moongate-tcp"].text = [[
local moongate = require "moongate"
moongate.listener { port = $port, address = "127.0.0.1", protocol = "tcp", name = "tcp" }
moongate.upstream { name = "backend", endpoints = { "127.0.0.1:$backend" } }
moongate.route { listeners = { "tcp" }, backends = "backend" }
]]

proxies["haproxy-tcp"] = {}
for key, value in pairs(proxies.haproxy) do proxies["haproxy-tcp"][key] = value end
proxies["haproxy-tcp"].text = proxies.haproxy.text:gsub("mode http\n  http%-reuse always", "mode tcp")

-- The loops that were weighed (poll/poll.c): no proxies, relays of bytes.
for _, variant in ipairs { "epoll", "outer", "nested", "uv" } do
  proxies["poll-" .. variant] = {
    needs = "build-bench/bench/poll",
    command = { "$build/bench/poll", variant, "$port", "$backend" },
  }
end

return proxies
