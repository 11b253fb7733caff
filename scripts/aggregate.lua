-- One answer made of two: the page of a user from the service of users and that of orders, which are asked at the same time.
--
--   curl 127.0.0.1:8080/home/7        {"user":{...},"orders":[...]}
--
-- From OpenResty: ngx.location.capture_multi, or lua-resty-http in ngx.thread.spawn.

local moongate = require "moongate"

local port = tonumber(os.getenv "PORT" or 8080)
moongate.listener { port = port, address = "127.0.0.1" }

-- The two services are routes of this gateway, so that the script runs alone.
moongate.upstream { name = "services", endpoints = { "127.0.0.1:" .. port } }
moongate.route {
  path = "/users",
  access = function(exchange)
    exchange:respond(200, { id = exchange.request.path:match "%d+$", name = "Ada" })
  end,
}
moongate.route {
  path = "/orders",
  access = function(exchange)
    if exchange.request.args.user == "13" then exchange:respond(500, "no orders today\n") end
    exchange:respond(200, { { id = 1, what = "tea" }, { id = 2, what = "milk" } })
  end,
}

-- The decoded answer, or nil and why there is none.
local function get(path)
  local response, err = moongate.http.request { upstream = "services", url = path, timeout = 2 }
  if not response then return nil, err end
  if response.status ~= 200 then return nil, path .. ": status " .. response.status end
  return moongate.json.decode(response.body)
end

-- Without it there is no page; without orders there is one.
local function get_orders(id)
  local orders, err = get("/orders?user=" .. id)
  if not orders then moongate.log.warn("no orders", { user = id, why = err }) end
  return orders or moongate.json.null
end

moongate.route {
  path = "/home",
  access = function(exchange)
    local id = exchange.request.path:match "^/home/(%d+)$"
    if not id then exchange:respond(404, { error = "no such page" }) end
    local user, orders = moongate.wait_all(
      moongate.spawn(get, "/users/" .. id), moongate.spawn(get_orders, id))
    if not user then exchange:respond(502, { error = "the service of users does not answer" }) end
    exchange:respond(200, { user = user, orders = orders })
  end,
}
