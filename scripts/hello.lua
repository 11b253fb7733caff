-- The first script: one listener, one upstream, one route. `make run` starts it.
--
--   curl 127.0.0.1:8080/
--   curl 127.0.0.1:8080/any/path?x=1 -d 'a body'

local moongate = require "moongate"

-- Where clients come in. PORT=9000 moongate run scripts/hello.lua takes another port.
moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }

-- Where requests go. builtin:echo is inside the binary and answers with what it was sent;
-- a real one would be: endpoints = { "10.0.0.5:8000", { "10.0.0.6:8000", weight = 2 } }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

-- What goes where: "/" and everything below it.
moongate.route { path = "/", backends = "echo" }
