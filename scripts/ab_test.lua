-- An A/B test: a new visitor gets variant a or b by chance, a cookie keeps him there.
--
--   curl -i 127.0.0.1:8080/                          Set-Cookie: variant=a (or b), and X-Variant
--   curl -i 127.0.0.1:8080/ -b 'variant=b'           X-Variant: b, always

local moongate = require "moongate"

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream { name = "a", endpoints = { "builtin:echo" } }
moongate.upstream { name = "b", endpoints = { "builtin:echo" } }

local function tell(exchange)
  exchange.response.headers["x-variant"] = exchange.upstream
end

-- Visitors who have the cookie. All cookies of a request are matched as one text: "theme=dark; variant=b".
for _, variant in ipairs { "a", "b" } do
  moongate.route {
    name = "variant " .. variant, path = "/", backends = variant, header_filter = tell,
    headers = { cookie = { regex = "(.*; *)?variant=" .. variant .. "(;.*)?" } },
  }
end

-- The others: whom the weights choose is known in header_filter.
moongate.route {
  name = "new visitor", path = "/", backends = { a = 50, b = 50 },
  header_filter = function(exchange)
    tell(exchange)
    -- add, not set: the backend may have cookies of its own
    exchange.response.headers:add("set-cookie",
      "variant=" .. exchange.upstream .. "; Path=/; Max-Age=2592000; SameSite=Lax")
  end,
}
