-- What this gateway does. moongate check /etc/moongate/gateway.lua says what is wrong; systemctl reload moongate takes a
-- change without losing a request. Examples: /usr/share/doc/moongate/scripts.
local moongate = require "moongate"

moongate.listener { port = 8080 }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }
moongate.route { path = "/", backends = "echo" }
