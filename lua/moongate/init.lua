--- The public module of configuration scripts: what the gateway listens on, where it forwards to, and by which route.
--- Every call takes one table; an error names the line of the call, the key path and what would be right.

local config = require "moongate._core.config"
local native = require "moongate._core.native"
local task = require "moongate._core.task"
local wait = require "moongate._core.wait"

---@class moongate
local moongate = {}

---@class moongate.CertificateFiles paths; relative ones are from where the script is
---@field cert string PEM: the certificate, and its chain behind it
---@field key string PEM: its private key, without a passphrase
---@field ocsp? string|boolean path of an OCSP response in DER, or false: nothing is stapled; default: it is fetched from the responder that the certificate names
---@field name? string unique in the listener; for the phase `certificate`; default: `cert`, as it is written here

---@class moongate.ClientCertificates
---@field verify? "required"|"optional"|"none" default "required"
---@field ca? string path of the CAs whose certificates are accepted; needed unless verify is "none"
---@field crl? string path of their CRLs
---@field depth? integer certificates between a client's and the CA; default 4
---@field header? boolean tell upstreams in X-Forwarded-Client-Cert; default false

---@class moongate.ListenerTls files are looked at every second: changed ones serve without a reload
---@field mode? "terminate"|"passthrough" default "terminate"; "passthrough", of protocol "tls", leaves TLS to the endpoint, and goes alone
---@field certificates? moongate.CertificateFiles[] where TLS ends here; the name that a client asks for chooses; the first is the default. These, or `acme`, or both
---@field acme? moongate.Acme certificates that the gateway obtains by itself
---@field min_version? "1.2"|"1.3" default "1.2"
---@field max_version? "1.2"|"1.3" default "1.3"
---@field ciphers? string of TLS 1.2, as OpenSSL lists them; default: forward secrecy and AEAD
---@field tickets? boolean sessions are resumed by ticket; default true
---@field client? moongate.ClientCertificates default: none is asked for

---@class moongate.Acme RFC 8555; using it agrees to the terms of service of the CA
---@field hosts? string[] one certificate each; no wildcards. Default: the hostname of the listener
---@field email? string whom the CA may write to
---@field directory? string https URL of the CA; default: Let's Encrypt, "https://acme-v02.api.letsencrypt.org/directory"
---@field storage? string path of a directory for keys and certificates; default "acme", beside the script
---@field challenge? "http-01"|"tls-alpn-01" default: the second, and where it fails the first
---@field ca? string path of the CAs that vouch for the directory; default: the system's
---@field eab? moongate.AcmeBinding for CAs that want an account of their own first

---@class moongate.AcmeBinding external account binding
---@field kid string
---@field secret string HMAC key, base64url

---@class moongate.Opening what is known in the phase `certificate`
---@field sni? string the host name that the client asks for, in lower case
---@field alpn string[] the protocols that it offers: "h2", "http/1.1"
---@field client moongate.ConnectionClient
---@field listener string the name of the listener that the name has chosen

---@class moongate.CertificateTexts
---@field cert string PEM: the certificate, and its chain behind it
---@field key string PEM: its private key, without a passphrase

---@class moongate.ProxyProtocol
---@field trusted string[] who may send a PROXY header, and is served at all: "10.0.0.0/8", "127.0.0.1", "unix:"

---@class moongate.ListenerLimits all workers together; one more is closed at once
---@field connections? integer open on the port; of protocol "udp": sessions
---@field per_client? integer of each client address (IPv6: of each /64)
---@field handshakes? integer with `tls`: handshakes under way on the port
---@field handshakes_per_client? integer with `tls`: of each client address

---@class moongate.Listener
---@field port? integer 1 to 65535; 0 takes any free one; needed unless `address` is a unix socket
---@field address? string|string[] IP addresses, or "unix:/path"; default "0.0.0.0" ("::" takes IPv4, too)
---@field proxy_protocol? moongate.ProxyProtocol every connection begins with a PROXY header; default: none does
---@field limits? moongate.ListenerLimits default: none
---@field mode? string of the file of a unix socket, in octal; default "0600"
---@field transparent? "redirect"|"tproxy" the kernel sends connections here that were meant for elsewhere; default: none
---@field hostname? string "api.example.com" or "*.example.com"; default: every host. Listeners of one port differ by it
---@field protocol? "http"|"https"|"tls"|"tcp"|"udp" default "http"; "tls", "tcp" and "udp" need a name, and a route that names it
---@field detect? boolean the first bytes tell the protocol: listeners of one port that all have it may differ there; default false
---@field tls? moongate.ListenerTls with "https" and "tls"
---@field plugins? moongate.Plugin[] they run before those of the route, and for requests without one
---@field rewrite? fun(exchange: moongate.Exchange) the listener's own functions need a name; each runs behind its plugins, before those of the route
---@field access? fun(exchange: moongate.Exchange)
---@field header_filter? fun(exchange: moongate.Exchange)
---@field body_filter? fun(exchange: moongate.Exchange)
---@field log? fun(exchange: moongate.Exchange)
---@field certificate? fun(connection: moongate.Opening): string|moongate.CertificateTexts|false|nil with "https" or "tls", and a name: chooses the certificate of a handshake; may wait. The name of one of `tls.certificates`, PEM, false: no connection, nil: as the name says
---@field name? string unique; for logs, functions, and the `listeners` of routes

--- Takes connections on a port. Of several on one port the most specific hostname that takes a request's host has it.
---@type fun(listener: moongate.Listener)
moongate.listener = config.listener

---@class moongate.Endpoint
---@field [1] string "10.0.0.5:8000", "[::1]:8000", or a host name that stands for all its addresses: "users.internal:8000"
---@field weight? integer the share of the traffic of each address; default 1, 0: none

---@class moongate.UpstreamLimits all workers together
---@field connections integer open at once, idle ones and tunnels included
---@field pending? integer requests that may wait for a connection; default 1024, 0: none (503 at once)
---@field pending_timeout? number seconds that they wait before a 503; default 1
---@field streams? integer requests at once on a connection of HTTP/2, and no more than its peer allows; default 128

---@class moongate.UpstreamTls files are looked at every second, as those of listeners
---@field verify? boolean default true; false believes whoever answers
---@field ca? string path of the CAs that vouch for it; default: the system's
---@field crl? string path of the CRLs of those CAs
---@field sni? string whom to ask for, and whose certificate it must be; default: the endpoints' host name, else their address
---@field sans? string[] instead: one of these stands in its certificate, to the letter: "spiffe://example/users", "users.example"
---@field cert? string path of a certificate of our own
---@field key? string path of its private key
---@field min_version? "1.2"|"1.3" default "1.2"
---@field max_version? "1.2"|"1.3" default "1.3"

---@class moongate.Health active checks of endpoints: path or grpc
---@field path? string asked for by GET; a status from 200 to 399 is healthy
---@field grpc? true|string grpc.health.v1.Health/Check, of the server or of a service; SERVING is healthy
---@field host? string what the check's Host says; default: the upstream's name, or the address where that is no host
---@field interval? number seconds between checks of an endpoint; default 5
---@field timeout? number seconds for each, at most the interval; default 2, or the interval
---@field healthy? integer checks in a row that bring an endpoint back; default 2
---@field unhealthy? integer failures in a row that take it out; default 3. The first check of an endpoint decides alone

---@class moongate.UpstreamTimeouts
---@field connect? number seconds, TLS included; default: timeouts.connect of the settings
---@field response? number seconds of silence, before and inside a response; default: timeouts.response of the settings. A route's that is longer wins

---@class moongate.ProxyHeader
---@field version "v1"|"v2"
---@field unique_id? boolean version 2: the id of the exchange that the connection is made for, unless one came; default false
---@field crc32c? boolean version 2: a checksum; default false

---@class moongate.Upstream
---@field name string unique
---@field endpoints (string|moongate.Endpoint)[] or { "builtin:echo" }, or { "original:dst" }: where the client meant to go
---@field balance? "round_robin"|"least_request" in turn by weight (the default), or the fewest under way for its weight
---@field limits? moongate.UpstreamLimits default: none
---@field protocol? "http1"|"http2"|"auto" default "http1"; "http2": by ALPN with tls, else by prior knowledge; "auto": what TLS agrees on
---@field timeouts? moongate.UpstreamTimeouts default: the settings'
---@field tls? moongate.UpstreamTls default: plain; { } will do
---@field proxy_protocol? "v1"|"v2"|moongate.ProxyHeader connections begin with a PROXY header, and serve one client connection
---  each; "v2" tells of the client's TLS, too; default: none
---@field health? moongate.Health default: none, every endpoint serves

--- Names a group of endpoints that routes may forward to.
---@type fun(upstream: moongate.Upstream)
moongate.upstream = config.upstream

---@class moongate.RouteTimeouts
---@field request? number seconds from the request's head to the whole response, retries included: then 504, or broken off
---@field idle? number seconds that a tunnel, a TCP connection or a call of gRPC (default 600), or a UDP session (60) may be silent
---@field response? number seconds from the request sent to the response's head, of each attempt: then 504 or a retry

---@class moongate.Retry what is sent once more is still here: a body of at most 48 KiB
---@field attempts? integer after the first, 1 to 10; default 1
---@field on? string[] "connect", statuses such as "503" (any method); "reset", "timeout" (idempotent methods); default { "connect" }
---@field backoff? number seconds before the first retry, doubled for each further one; default 0.025

---@alias moongate.HeaderValues table<string, string|string[]> a list makes several fields

---@class moongate.HeaderEdits applied in this order
---@field set? moongate.HeaderValues replaces every field of that name
---@field add? moongate.HeaderValues what is there stays
---@field remove? string[] names

---@class moongate.RequestHeadersPlugin: moongate.HeaderEdits
---@field [1] "request-headers"

---@class moongate.ResponseHeadersPlugin: moongate.HeaderEdits
---@field [1] "response-headers"

---@alias moongate.PathEdit string|{ prefix: string } the whole path, or what the route matched of it

---@class moongate.UrlRewritePlugin
---@field [1] "url-rewrite"
---@field hostname? string host, or host:port
---@field path? moongate.PathEdit

---@class moongate.RedirectPlugin
---@field [1] "redirect"
---@field scheme? "http"|"https" default: the request's
---@field hostname? string without a port; default: the request's
---@field port? integer default: that of `scheme` where it is given, else the listener's
---@field path? moongate.PathEdit
---@field status? 301|302|303|307|308 default 302

---@class moongate.DirectResponsePlugin
---@field [1] "direct-response"
---@field status? integer 200 to 599; default 200
---@field body? string
---@field content_type? string default "text/plain; charset=utf-8"
---@field headers? moongate.HeaderValues

---@class moongate.CorsPlugin
---@field [1] "cors"
---@field origins string[] "https://www.example.com", "https://*.example.com", or "*" alone
---@field methods? string[] or { "*" }
---@field headers? string[] that requests may carry, or { "*" }
---@field expose_headers? string[] that scripts may read, or { "*" }
---@field credentials? boolean default false
---@field max_age? integer seconds that a preflight's answer may be kept; default 5

---@class moongate.GrpcWebPlugin
---@field [1] "grpc-web"

---@alias moongate.Plugin
---| "direct-response"
---| moongate.RequestHeadersPlugin
---| moongate.ResponseHeadersPlugin
---| moongate.UrlRewritePlugin
---| moongate.RedirectPlugin
---| moongate.DirectResponsePlugin
---| moongate.CorsPlugin
---| moongate.GrpcWebPlugin
---| { [1]: string, [string]: any } one of your own, in Lua

---@class moongate.Path
---@field exact? string this path alone
---@field regex? string PCRE2; describes the whole path: "/v[0-9]+/.*"

---@class moongate.Text
---@field exact? string
---@field regex? string PCRE2; describes the whole value

---@class moongate.Grpc of a call's path /service/method; what is left out is not asked
---@field service? string|moongate.Text "shop.Orders"
---@field method? string|moongate.Text "Get"

---@class moongate.Match all that is given must hold
---@field path? string|moongate.Path a string is a prefix of whole segments: "/users" matches /users and /users/7; default "/"
---@field grpc? moongate.Grpc calls of gRPC and gRPC-Web, in the place of path, methods and query; { } takes all of them
---@field methods? string[] any of them: { "GET", "POST" }
---@field headers? table<string, string|moongate.Text> against all values of a header, joined by ", " (cookies "; ")
---@field query? table<string, string|moongate.Text> against the first value of a parameter, decoded

---@class moongate.Route: moongate.Match
---@field hosts? string[] any of them: { "api.example.com", "*.example.org" }; default: every host
---@field listeners? string[] names of listeners that have the route; default: all of HTTP whose hostname takes one of its hosts. Of those with protocol "tls", "tcp" or "udp" it has backends, timeouts.idle, a name, preread and, with "tls", hosts alone
---@field matches? moongate.Match[] any of them, in place of path, methods, headers and query
---@field backends? string|table<string, integer> the name of an upstream, or weights by name (0: no traffic); needed unless a plugin always answers (redirect, direct-response)
---@field plugins? moongate.Plugin[] they run in this order
---@field timeouts? moongate.RouteTimeouts default: none beside the settings'
---@field retry? moongate.Retry
---@field rewrite? fun(exchange: moongate.Exchange) the route's own functions; each runs behind its plugins, and may wait
---@field access? fun(exchange: moongate.Exchange)
---@field header_filter? fun(exchange: moongate.Exchange)
---@field body_filter? fun(exchange: moongate.Exchange)
---@field log? fun(exchange: moongate.Exchange)
---@field preread? fun(connection: moongate.Connection): string|false|nil of listeners with protocol "tcp" or "tls": an upstream, false to close it, nil for the backends
---@field name? string unique; default: the first match written out, "GET api.example.com/users"

--- Sends matching requests to an upstream. The most specific match wins: host, then path (exact, regex, longest prefix),
--- then methods, number of headers, number of query parameters, then the first written.
---@type fun(route: moongate.Route)
moongate.route = config.route

---@class moongate.Timeouts
---@field connect? number seconds; default 5
---@field response? number longest silence of an upstream, seconds; default 60
---@field idle? number between two requests of a connection, seconds; default 75
---@field request_head? number from the first byte of a head to its last, seconds; default 10
---@field upstream_idle? number a pooled upstream connection, seconds; default 60
---@field upstream_ping? number silence of an HTTP/2 upstream until it is asked by PING, seconds; default 10
---@field body? number a peer that takes nothing of what is sent, seconds; default 30
---@field drain? number seconds; default 30
---@field handshake? number of TLS, of clients, seconds; default 10
---@field preread? number of a TCP or TLS connection, all its functions together, seconds; default 30
---@field linger? number discarding input after a final answer, seconds; default 2

---@class moongate.Limits
---@field header_bytes? integer a whole head; default 32768
---@field header_count? integer fields of a head; default 100
---@field target_bytes? integer the target of a request; default 16384
---@field buffer_bytes? integer all connection buffers together; default a quarter of the memory, at most 1 GiB
---@field connections? integer client connections; default what the descriptors allow

---@class moongate.Resolver
---@field servers? string[] "10.0.0.2" or "127.0.0.1:5353"; default: as /etc/resolv.conf says (/etc/hosts goes first)
---@field timeout? number seconds that one server is given, doubled the second time; default 1
---@field negative? number seconds until a name that is not there is asked for again; default 5
---@field stale? number seconds that old addresses serve while the resolver fails; default: without limit

---@class moongate.AccessLog
---@field file string a path, or "stdout"
---@field format? string "json", "combined", or a text with $fields; default "json"
---@field fields? string[] with "json": which fields, in this order
---@field buffer_bytes? integer of each worker, for lines that wait for the disk; default 1048576

---@class moongate.Metrics
---@field series? integer names of routes, and of upstreams, that are counted one by one; default 2000
---@field endpoints? integer endpoints that are shown one by one, 0: none at all; default 1000

---@class moongate.TlsSettings
---@field key_log? string file for the secrets of all connections, for programs that read captures; takes effect at the next start

---@class moongate.Settings
---@field workers? integer default: one a CPU
---@field timeouts? moongate.Timeouts
---@field limits? moongate.Limits
---@field resolver? moongate.Resolver
---@field body_rate? integer bytes a second that a request body must average; default 240, 0: none
---@field keepalive_requests? integer requests a client connection may carry; default 0: no bound
---@field trusted_hops? integer proxies in front whose X-Forwarded-* are kept; default 0
---@field via? boolean add Via; default false
---@field forwarded? boolean send Forwarded (RFC 7239); default false
---@field request_id? boolean send X-Request-Id; default false
---@field splice? boolean move long bodies inside the kernel; default true
---@field state? string directory that keeps the last good configuration, for a start whose script is broken (run --state DIR)
---@field log_level? "debug"|"info"|"warn"|"error"
---@field access_log? moongate.AccessLog default: none
---@field metrics? moongate.Metrics
---@field tls? moongate.TlsSettings

--- What holds for the whole gateway. At most one call.
---@type fun(settings: moongate.Settings)
moongate.settings = config.settings

--- Runs in every worker before it takes its first request, and again in every worker after a reload that changed the script;
--- it may wait. When it fails, or takes more than 10 s, the configuration is refused.
---@param fn fun()
function moongate.init_worker(fn)
  native.start(fn)
end

--- Seconds since 1970, to the millisecond, as of the turn of the loop that runs now.
---@return number
function moongate.now()
  return wait.now()
end

--- Waits; the worker does other things meanwhile.
---@param seconds number
function moongate.sleep(seconds)
  wait.sleep(seconds)
end

moongate.spawn = task.spawn
moongate.wait_all = task.wait_all
moongate.wait_any = task.wait_any

-- Loaded at their first use, all of them before the first request.
local nouns = { "log", "timer", "json", "shared", "http", "regex", "certificates" }
local is_noun = {}
for _, name in ipairs(nouns) do is_noun[name] = true end

local function load(name)
  moongate[name] = require("moongate." .. name)
  return moongate[name]
end

function wait.load_all()
  for _, name in ipairs(nouns) do load(name) end
end

return setmetatable(moongate, {
  __index = function(_, name)
    if is_noun[name] then return load(name) end
    error(("there is no moongate.%s; there are listener, upstream, route and settings for the " ..
      "configuration; init_worker, now, sleep, spawn, wait_all, wait_any, %s for its functions")
      :format(tostring(name), table.concat(nouns, ", ")), 2)
  end,
})
