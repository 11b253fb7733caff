--- The public module of configuration scripts: what the gateway listens on, where it forwards to, and by which route.
--- Every call takes one table; an error names the line of the call, the key path and what would be right.

local config = require "moongate._core.config"

---@class moongate
local moongate = {}

---@class moongate.Listener
---@field port integer 1 to 65535; 0 takes any free one
---@field address? string an IP address; default "0.0.0.0"
---@field protocol? "http"
---@field name? string for logs

--- Takes connections on a port.
---@type fun(listener: moongate.Listener)
moongate.listener = config.listener

---@class moongate.Endpoint
---@field [1] string "10.0.0.5:8000"
---@field weight? integer its share of the traffic; default 1, 0: none

---@class moongate.Upstream
---@field name string unique
---@field endpoints (string|moongate.Endpoint)[] or { "builtin:echo" }
---@field balance? "round_robin"

--- Names a group of endpoints that routes may forward to.
---@type fun(upstream: moongate.Upstream)
moongate.upstream = config.upstream

---@class moongate.Route
---@field path? string a prefix of whole segments: "/users" matches /users and /users/7; default "/"
---@field backends string the name of an upstream
---@field name? string for logs; default: the path

--- Sends matching requests to an upstream. The longest path wins.
---@type fun(route: moongate.Route)
moongate.route = config.route

---@class moongate.Timeouts
---@field connect? number seconds; default 5
---@field response? number longest silence of an upstream, seconds; default 60
---@field idle? number between two requests of a connection, seconds; default 75
---@field request_head? number from the first byte of a head to its last, seconds; default 10
---@field upstream_idle? number a pooled upstream connection, seconds; default 60
---@field body? number a peer that takes nothing of what is sent, seconds; default 30
---@field drain? number seconds; default 30
---@field linger? number discarding input after a final answer, seconds; default 2

---@class moongate.Limits
---@field header_bytes? integer a whole head; default 32768
---@field header_count? integer fields of a head; default 100
---@field target_bytes? integer the target of a request; default 16384
---@field buffer_bytes? integer all connection buffers together; default a quarter of the memory, at most 1 GiB
---@field connections? integer client connections; default what the descriptors allow

---@class moongate.Settings
---@field workers? integer default: one a CPU
---@field timeouts? moongate.Timeouts
---@field limits? moongate.Limits
---@field body_rate? integer bytes a second that a request body must average; default 240, 0: none
---@field keepalive_requests? integer requests a client connection may carry; default 0: no bound
---@field trusted_hops? integer proxies in front whose X-Forwarded-* are kept; default 0
---@field via? boolean add Via; default false
---@field forwarded? boolean send Forwarded (RFC 7239); default false
---@field request_id? boolean send X-Request-Id; default false
---@field splice? boolean move long bodies inside the kernel; default true
---@field log_level? "debug"|"info"|"warn"|"error"

--- What holds for the whole gateway. At most one call.
---@type fun(settings: moongate.Settings)
moongate.settings = config.settings

local later = { shared = true, sleep = true, now = true, log = true, http = true, plugin = true,
  timer = true, json = true,
  regex = true, spawn = true, consumer = true }

return setmetatable(moongate, {
  __index = function(_, name)
    if later[name] then
      error("moongate." .. name .. " is not supported yet", 2)
    end
    error(("there is no moongate.%s; there are listener, upstream, route and settings")
      :format(tostring(name)), 2)
  end,
})
