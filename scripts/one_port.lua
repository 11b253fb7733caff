-- One port for everything: requests, TLS passed on by the name that is asked for, and other protocols, told apart by their first bytes.
--
--   DATABASE=127.0.0.1:5433 QUEUE=127.0.0.1:6379 moongate run scripts/one_port.lua
--
--   curl http://127.0.0.1:8080/                                                 the website answers
--   openssl s_client -connect 127.0.0.1:8080 -servername one.db.example         reaches DATABASE, which has the certificate
--   printf 'PING\r\n' | nc -q 1 127.0.0.1 8080                                  reaches QUEUE
--   printf 'SHUTDOWN\r\n' | nc -q 1 127.0.0.1 8080                              is closed: preread has looked
--
-- A server that speaks first (mail, MySQL) works behind such a port, too: a client that is silent for 100 ms is taken for its.

local moongate = require "moongate"

local port, address = tonumber(os.getenv "PORT" or 8080), "127.0.0.1"

moongate.listener { port = port, address = address, detect = true, name = "web" }
moongate.listener {
  port = port, address = address, detect = true, name = "databases", protocol = "tls",
  hostname = "*.db.example", tls = { mode = "passthrough" },
}
moongate.listener {
  port = port, address = address, detect = true, name = "queue", protocol = "tcp",
}

moongate.upstream { name = "web", endpoints = { "builtin:echo" } }
moongate.upstream { name = "database", endpoints = { os.getenv "DATABASE" or "127.0.0.1:5433" } }
moongate.upstream { name = "queue", endpoints = { os.getenv "QUEUE" or "127.0.0.1:6379" } }

moongate.route { listeners = { "web" }, backends = "web" }
moongate.route {
  listeners = { "databases" }, hosts = { "one.db.example", "*.test.db.example" },
  backends = "database",
}

local FORBIDDEN = { "shutdown", "flushall", "config" }

moongate.route {
  listeners = { "queue" }, backends = "queue",
  preread = function(connection)
    local command = connection:peek(8, 0.5):lower()
    for _, word in ipairs(FORBIDDEN) do
      if command:find(word, 1, true) then
        moongate.log.warn("refused", { client = connection.client.address, command = word })
        return false
      end
    end
  end,
}
