-- moongate.regex: what its functions give, their bounds, and that the cache of patterns is one.
local h = require "test.support.harness"
local cjson = require "cjson.safe"

local HEAD = [[
local moongate = require "moongate"
local regex = moongate.regex
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1" }
local function list(...)
  local out = {}
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if type(value) == "table" then
      local plain = {}
      for key, own in pairs(value) do plain[tostring(key)] = own end
      value = plain
    end
    if value == nil then value = "nil" end
    out[i] = value
  end
  return out
end
]]

-- What each expression gives when the access function evaluates it.
local function results(expressions, top)
  local lines = { HEAD, top or "", 'moongate.route { path = "/", access = function(exchange)', "local all = {}" }
  for i, line in ipairs(expressions) do lines[#lines + 1] = ("all[%d] = list((function() %s end)())"):format(i, line) end
  lines[#lines + 1] = "exchange:respond(200, all)\nend }"
  local gateway = h.gateway { config = table.concat(lines, "\n") }
  local response = gateway:get "/"
  assert.equal(200, response.status, response.raw)
  -- again, from compiled traces and the cache
  for _ = 1, 3 do assert.equal(response.body, gateway:get("/").body) end
  return assert(cjson.decode(response.body))
end

local function check_rows(rows)
  local expressions = {}
  for i, row in ipairs(rows) do expressions[i] = row[1]:find "^local " and row[1] or "return " .. row[1] end
  local got = results(expressions)
  for i, row in ipairs(rows) do assert.same(row[2], got[i], row[1]) end
end

describe("regex", function()
  it("matches and finds", h.test(function()
    check_rows {
      { 'regex.match("abc", "b")', { { ["0"] = "b" } } },
      { 'regex.match("abc", "x")', { "nil" } },
      { 'regex.match("2026-11", [[(\\d+)-(\\d+)]])', { { ["0"] = "2026-11", ["1"] = "2026", ["2"] = "11" } } },
      { 'regex.match("b", "(a)|(b)|(c)")', { { ["0"] = "b", ["1"] = false, ["2"] = "b", ["3"] = false } } },
      { 'regex.match("k=v", "(?<key>.)=(?<value>.)(?<more>;)?")',
        { { ["0"] = "k=v", ["1"] = "k", ["2"] = "v", ["3"] = false, key = "k", value = "v", more = false } } },
      { 'regex.match("", "")', { { ["0"] = "" } } },
      { 'regex.match(404, "^4")', { { ["0"] = "4" } } },
      { 'regex.match("a\\0b", "\\\\x00b")', { { ["0"] = "\0b" } } },
      { 'regex.find("hello", "l+")', { 3, 4 } },
      { 'regex.find("hello", "x")', { "nil" } },
      { 'regex.find("hello", "")', { 1, 0 } },
      { 'regex.find("hello", "$")', { 6, 5 } },
    }
  end))

  it("has options", h.test(function()
    check_rows {
      { 'regex.find("ABC", "b")', { "nil" } },
      { 'regex.find("ABC", "b", "i")', { 2, 2 } },
      { 'regex.find("ABC", "b", "ijo")', { 2, 2 } },
      { 'regex.find("ABC", "b", "jo")', { "nil" } },
      { 'regex.find("ABC", "b", "iii")', { 2, 2 } },
      { 'regex.find("a\\nb", "^b")', { "nil" } },
      { 'regex.find("a\\nb", "^b", "m")', { 3, 3 } },
      { 'regex.find("a\\nb", "a.b")', { "nil" } },
      { 'regex.find("a\\nb", "a.b", "s")', { 1, 3 } },
      { 'regex.find("ab", "a b # it")', { "nil" } },
      { 'regex.find("ab", "a b # it", "x")', { 1, 2 } },
      { 'regex.find("äb", "^.b")', { "nil" } },
      { 'regex.find("äb", "^.b", "u")', { 1, 3 } },
      { 'regex.find("\\xff-b", "-.", "u")', { 2, 3 } },
      { 'regex.find("ab", "b", "a")', { "nil" } },
      { 'regex.find("ab", "a", "a")', { 1, 1 } },
    }
  end))

  it("goes over all matches", h.test(function()
    local all = 'local out = {} for m in regex.gmatch(%s) do out[#out + 1] = m[1] or m[0] end return unpack(out)'
    check_rows {
      { all:format '"a1b22c", "[0-9]+"', { "1", "22" } },
      { all:format '"a=1, b=2", "(\\\\w)=\\\\w"', { "a", "b" } },
      { all:format '"abc", "x"', {} },
      { all:format '"ab", ""', { "", "", "" } },
      { all:format '"baac", "a*"', { "", "aa", "", "" } },
      { all:format '"äö", "", "u"', { "", "", "" } },
      { all:format '"aab", "a", "a"', { "a", "a" } },
      { 'local next = regex.gmatch("a", "a") next() return next(), next()', { "nil", "nil" } },
    }
  end))

  it("replaces", h.test(function()
    check_rows {
      { 'regex.gsub("hello", "l", "L")', { "heLLo", 2 } },
      { 'regex.gsub("hello", "x", "L")', { "hello", 0 } },
      { 'regex.gsub("hello", "(h)(e)", "$2$1-$0-${1}1")', { "eh-he-h1llo", 1 } },
      { 'regex.gsub("k=v", "(?<key>.)=(?<value>.)", "${value}=${key}")', { "v=k", 1 } },
      { 'regex.gsub("b", "(a)|b", "[$1]")', { "[]", 1 } },
      { 'regex.gsub("b", "b", "$7")', { "", 1 } },
      { 'regex.gsub("5", "5", "$$5")', { "$5", 1 } },
      { 'regex.gsub("abc", "", "-")', { "-a-b-c-", 4 } },
      { 'regex.gsub("baac", "a*", "-")', { "-b--c-", 4 } },
      { 'regex.gsub("äö", "", "-", "u")', { "-ä-ö-", 3 } },
      { 'regex.gsub("", "", "-")', { "-", 1 } },
      { 'regex.gsub("a b", "\\\\w", function(m) return m[0]:upper() end)', { "A B", 2 } },
      { 'regex.gsub("a b", "\\\\w", function(m) if m[0] == "a" then return 1 end end)', { "1 b", 2 } },
      { 'regex.gsub("a b c", "(?<x>\\\\w)", function(m) moongate.sleep(0) return (regex.gsub(m.x, ".", "<$0>")) end)',
        { "<a> <b> <c>", 3 } },
      { 'regex.gsub("a", "a", "$")', { "nil", "replacement: what does $ stand for at byte 1? There are $1, ${name} and $$" } },
      { 'regex.gsub("a", "a", "$x")', { "nil", "replacement: what does $ stand for at byte 1? There are $1, ${name} and $$" } },
      { 'regex.gsub("a", "a", "x${who}")', { "nil", "replacement: the pattern has no group who" } },
    }
  end))

  it("says what is wrong with a pattern, or with a subject", h.test(function()
    local fault = "pattern: missing closing parenthesis (at byte 2)"
    local limit = "the pattern backtracks too much on this subject"
    check_rows {
      { 'regex.match("a", "(a")', { "nil", fault } },
      { 'regex.match("a", "(a")', { "nil", fault } },
      { 'regex.find("a", "(a")', { "nil", fault } },
      { 'regex.gmatch("a", "(a")', { "nil", fault } },
      { 'regex.gsub("a", "(a", "b")', { "nil", fault } },
      { 'regex.match("a", ("a"):rep(5000))', { "nil", "pattern: the pattern is too long (at byte 4096)" } },
      { 'regex.match("a", ("()"):rep(256))', { "nil", "pattern: the pattern has too many groups (at byte 0)" } },
      { 'regex.match(("a"):rep(60) .. "cb", "(a+)+b")', { "nil", limit } },
      { 'regex.find(("a"):rep(60) .. "cb", "(a+)+b")', { "nil", limit } },
      { 'regex.gsub(("a"):rep(60) .. "cb", "(a+)+b", "")', { "nil", limit } },
      { 'local ok, err = pcall(function() for _ in regex.gmatch(("a"):rep(60) .. "cb", "(a+)+b") do end end) return ok, '
        .. '(err:gsub("^.*:%d+: ", ""))', { false, "regex.gmatch: " .. limit } },
    }
  end))

  it("says at the line of the call which argument cannot be right", h.test(function()
    local rows = {
      { 'regex.match(nil, "a")', "regex.match takes a string as the subject, got nil" },
      { 'regex.find({}, "a")', "regex.find takes a string as the subject, got table" },
      { 'regex.gmatch("a")', "regex.gmatch takes a string as the pattern, got nil" },
      { 'regex.match("a", "a", 5)', "regex.match takes a string as the options, got number" },
      { 'regex.find("a", "a", "iz")', 'regex.find: unknown option "z"; there are i, m, s, x, u, a, j and o' },
      { 'regex.gsub("a", "a")', "regex.gsub takes a string or a function as the replacement, got nil" },
      { 'regex.gsub("a", "a", function() return {} end)', "regex.gsub: the replacement function gave table, not a string" },
    }
    for i, row in ipairs(rows) do
      rows[i] = { ('local ok, err = pcall(function() %s; local x end) return ok, (err:gsub("^.*gateway.lua:%%d+: ", "at "))')
        :format(row[1]), { false, "at " .. row[2] } }
    end
    check_rows(rows)
  end))

  it("works while the script is evaluated", h.test(function()
    local got = results({ "return version" },
      'local version = regex.match("v12", "v(?<n>[0-9]+)").n .. regex.gsub("ab", "b", "c")')
    assert.same({ { "12ac" } }, got)
  end))

  it("keeps a bounded number of compiled patterns", h.test(function()
    if h.loop.scale > 1 then return pending "a sanitizer's allocator keeps what is freed" end
    local gateway = h.gateway { config = HEAD .. [[
      local n = 0
      moongate.route { path = "/", access = function(exchange)
        local sum = 0
        for m in regex.gmatch("k1 k2 k3", "k([0-9])") do
          for i = 1, 400 do
            n = n + 1
            local pattern = "(x)" .. n .. "|(?<y>y)"
            sum = sum + (regex.find("x" .. n, pattern) or 100) + (regex.find("x" .. n, pattern, "i") or 100)
          end
          sum = sum + tonumber(m[1])
        end
        exchange:respond(200, tostring(sum))
      end }
    ]] }
    assert.equal("2406", gateway:get("/").body)
    for _ = 1, 5 do gateway:get "/" end
    local before = gateway:rss_kb()
    for _ = 1, 20 do assert.equal("2406", gateway:get("/").body) end
    assert.is_true(gateway:rss_kb() - before < 8192, before .. " KiB, then " .. gateway:rss_kb())
  end))
end)
