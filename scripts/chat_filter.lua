-- A WebSocket whose messages are watched: numbers of cards are blanked, and who sends too much is shown out.
--
--   BACKEND=127.0.0.1:9001 moongate run scripts/chat_filter.lua     any WebSocket server; then connect to ws://127.0.0.1:8080/
--
-- Without websocket_frame the same route would pass the bytes on unread. With it messages are whole, and never compressed.

local moongate = require "moongate"

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream { name = "chat", endpoints = { os.getenv "BACKEND" or "127.0.0.1:9001" } }

local CARD = "%d%d%d%d[ -]?%d%d%d%d[ -]?%d%d%d%d[ -]?(%d%d%d%d)"
local MESSAGES_MAX, WINDOW = 20, 10 -- so many in so many seconds

-- True: the client has sent more than it may.
local function is_too_fast(vars)
  local now = moongate.now()
  if not vars.since or now - vars.since > WINDOW then vars.since, vars.count = now, 0 end
  vars.count = vars.count + 1
  return vars.count > MESSAGES_MAX
end

moongate.route {
  path = "/", backends = "chat",
  websocket = { max_message = 65536 },
  websocket_frame = function(exchange, message)
    if message.from == "upstream" then return end
    if is_too_fast(exchange.vars) then message:close(1008, "slow down") end
    if message.kind == "text" then
      return (message.data:gsub(CARD, "**** **** **** %1"))
    end
  end,
  log = function(exchange)
    moongate.log.info("left", { client = exchange.request.client.address, id = exchange.id })
  end,
}
