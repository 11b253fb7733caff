-- Shared dictionaries of scripts: what the methods give, workers that count together, time, room, reloads.
local h = require "test.support.harness"
local cjson = require "cjson.safe"

local HEAD = [[
local moongate = require "moongate"
moongate.settings { workers = %d }
moongate.listener { port = 0, address = "127.0.0.1" }
]]

-- A gateway whose access function answers with the list that `body` returns, as JSON ("nil" for nil).
local function script(top, body, workers)
  return HEAD:format(workers or 1) .. (top or "") .. [[

local function list(...)
  local out = {}
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if value == nil then value = "nil" end
    out[i] = value
  end
  return out
end
moongate.route { path = "/", access = function(exchange)
  local arg = exchange.request.args
  exchange:respond(200, { list((function() ]] .. body .. [[ end)()) })
end }
]]
end

local function start(top, body, workers)
  return h.gateway { config = script(top, body, workers) }
end

local function ask(gateway, query)
  local response = gateway:get("/" .. (query and "?" .. query or ""))
  assert.equal(200, response.status, response.raw)
  return assert(cjson.decode(response.body))[1]
end

-- What the expressions give, each on one dictionary of this size.
local function results(expressions, size)
  local lines = {}
  for _, line in ipairs(expressions) do
    lines[#lines + 1] = line:find "^!" and line:sub(2) or "all[#all + 1] = list(" .. line .. ")"
  end
  local gateway = start(('local d = moongate.shared("d", { size = %d })'):format(size or 1048576),
    "local all = {}\n" .. table.concat(lines, "\n") .. "\nreturn all")
  return ask(gateway)[1]
end

local function check(text)
  local path, dir = h.write_file(HEAD:format(1) .. text)
  local result = h.exec { "check", path }
  os.remove(path)
  os.remove(dir)
  return result
end

describe("shared dictionary #threads", function()
  it("gives results as ngx.shared.DICT does", h.test(function()
    local rows = {
      { 'd:get("a")', { "nil" } },
      { 'd:set("a", "text")', { true, "nil", false } },
      { 'd:get("a")', { "text" } },
      { 'd:set("a", 1.5, 0, 7)', { true, "nil", false } },
      { 'd:get("a")', { 1.5, 7 } },
      { 'd:set("a", "", nil, 4294967295)', { true, "nil", false } },
      { 'd:get("a")', { "", 4294967295 } },
      { 'd:get_stale("a")', { "", 4294967295, false } },
      { 'd:set("t", true)', { true, "nil", false } },
      { 'd:set("f", false)', { true, "nil", false } },
      { 'd:get("t")', { true } },
      { 'd:get("f")', { false } },
      { 'd:get_stale("f")', { false, "nil", false } },
      { 'd:get_stale("none")', { "nil" } },
      { 'd:add("a", 1)', { false, "exists", false } },
      { 'd:add("b", 1)', { true, "nil", false } },
      { 'd:safe_add("b", 1)', { false, "exists", false } },
      { 'd:replace("c", 1)', { false, "not found", false } },
      { 'd:replace("b", 2)', { true, "nil", false } },
      { 'd:get("b")', { 2 } },
      { 'd:incr("b", 3)', { 5 } },
      { 'd:incr("b", -0.5)', { 4.5 } },
      { 'd:incr("b", "1", 0)', { 5.5, "nil", false } },
      { 'd:incr("a", 1)', { "nil", "not a number" } },
      { 'd:incr("n", 1)', { "nil", "not found" } },
      { 'd:incr("n", 1, 10)', { 11, "nil", false } },
      { 'd:incr("n2", 1, 10, 5)', { 11, "nil", false } },
      { 'd:ttl("n2")', { 5 } },
      { 'd:ttl("n")', { 0 } },
      { 'd:ttl("none")', { "nil", "not found" } },
      { 'd:expire("n", 3)', { true } },
      { 'd:ttl("n")', { 3 } },
      { 'd:expire("n", 0)', { true } },
      { 'd:ttl("n")', { 0 } },
      { 'd:expire("none", 3)', { "nil", "not found" } },
      { 'd:set("n", nil)', { true, "nil", false } },
      { 'd:get("n")', { "nil" } },
      { 'd:delete("b")', { true, "nil", false } },
      { 'd:delete("b")', { true, "nil", false } },
      { 'd:add("b", nil)', { "nil", "attempt to add or replace nil values" } },
      { 'd:set("b", {})', { "nil", "bad value type" } },
      { 'd:get(nil)', { "nil", "nil key" } },
      { 'd:set(nil, 1)', { "nil", "nil key" } },
      { 'd:incr(nil, 1)', { "nil", "nil key" } },
      { 'd:get("")', { "nil", "empty key" } },
      { 'd:set("", 1)', { "nil", "empty key" } },
      { 'd:ttl("")', { "nil", "empty key" } },
      { 'd:get(("k"):rep(65536))', { "nil", "key too long" } },
      { 'd:set(("k"):rep(65535), 1)', { true, "nil", false } },
      { 'd:set(12, "number")', { true, "nil", false } },
      { 'd:get("12")', { "number" } },
      { 'd:get(12)', { "number" } },
      { 'd:get_keys(0) and #d:get_keys(0)', { 6 } },
      { '#d:get_keys(2)', { 2 } },
      { '#d:get_keys(1e9)', { 6 } },
      { 'd:capacity()', { 1048576 } },
      { 'd:free_space() > 900000', { true } },
      { 'd:flush_all()', {} },
      { 'd:get("a")', { "nil" } },
      { 'd:get_stale("a")', { "", 4294967295, true } },
      { '#d:get_keys()', { 0 } },
      { 'd:flush_expired(2)', { 2 } },
      { 'd:flush_expired()', { 4 } },
      { 'd:flush_expired()', { 0 } },
      { 'd:get_stale("a")', { "nil" } },
    }
    local expressions = {}
    for i, row in ipairs(rows) do expressions[i] = row[1] end
    local got = results(expressions)
    for i, row in ipairs(rows) do
      -- An empty list is {} in JSON as well.
      assert.same(row[2], got[i] or {}, row[1])
    end
  end))

  it("keeps bytes of any length and kind", h.test(function()
    local got = results {
      '!for _, len in ipairs { 0, 1, 4095, 4096, 4097, 100000, 1048576, 3000000 } do',
      '!local text = ("\\0\\255x\\n"):rep(math.ceil(len / 4)):sub(1, len)',
      '!local ok = d:set("k", text)',
      '!d:set("small", "s")',
      'len, ok, d:get("k") == text, d:get("small"), d:get_stale("k") == text, (select(3, d:get_stale("k")))',
      '!end',
      '!d:set("nul\\0key", "v")',
      'd:get("nul\\0key"), d:get("nul"), d:get_keys()[1] ~= nil',
    }
    for i = 1, 6 do assert.same({ true, true, "s", true, false }, { unpack(got[i], 2) }, got[i][1]) end
    assert.same({ 1048576, false, false, "s", false, false }, got[7]) -- longer than it can hold: the one before stays
    assert.same({ 3000000, false, false, "s", false, false }, got[8])
    assert.same({ "v", "nil", true }, got[9])
  end))

  it("makes room for what is new, and says so", h.test(function()
    local got = results({
      '!local text, forced = ("x"):rep(1000), 0',
      '!for i = 1, 100 do local _, _, forcible = d:set("k" .. i, text); if forcible then forced = forced + 1 end end',
      'forced > 50, d:get("k1") == nil, d:get("k100") == text',
      '!local ok, err, forcible',
      '!for i = 1, 100 do ok, err, forcible = d:safe_set("s" .. i, text); if not ok then break end end',
      'ok, err, forcible, d:get("k100") == text',
      'd:set("long", ("x"):rep(20000))',
      '!d:flush_all()',
      'd:safe_set("s", text)',
    }, 32768)
    assert.same({ true, true, true }, got[1])
    assert.same({ false, "no memory", false, true }, got[2])
    assert.equal("boolean", type(got[3][1]))
    assert.same({ true, "nil", false }, got[4])
  end))

  it("forgets in time", h.test(function()
    local gateway = start('local d = moongate.shared("d")', [[
      d:set("soon", "v", 0.05, 3)
      d:set("tiny", "v", 0.0000001)
      d:set("later", "v", 100)
      d:incr("count", 1, 0, 0.05)
      local before = d:get("soon")
      local ttl = d:ttl("later")
      moongate.sleep(0.1)
      return before, ttl, d:get("soon") or "gone", d:get("tiny") or "gone", d:get("later"), d:get("count") or "gone",
        (select(3, d:get_stale("soon"))), (d:ttl("soon")) or "gone", d:ttl("later") < 100, #d:get_keys(), d:flush_expired() > 0,
        (d:get_stale("soon") or "freed")
    ]])
    assert.same({ "v", 100, "gone", "gone", "v", "gone", true, "gone", true, 1, true, "freed" }, ask(gateway))
  end))

  it("counts exactly over workers", h.test(function()
    local gateway = start('local d = moongate.shared("d")\nlocal own = 0\nmoongate.init_worker(function() d:incr("starts", 1, 0) end)', [[
      own = own + 1
      if arg.sum then return d:get("n"), d:get("starts"), #d:get_keys() end
      for i = 1, 100 do d:incr("n", 1, 0); d:set("k" .. i, own); d:get("k" .. (101 - i)) end
      return own
    ]], 2)
    local clients = {}
    for i = 1, 32 do clients[i] = gateway:connect() end
    for round = 1, 5 do
      for i = 1, 32 do clients[i]:send("GET /?r=" .. round .. " HTTP/1.1\r\nHost: h.example\r\n\r\n") end
      for i = 1, 32 do assert.equal(200, h.read_response(clients[i]).status) end
    end
    assert.same({ 16000, 2, 102 }, ask(gateway, "sum=1"))
  end))

  it("outlives reloads of data and of code", h.test(function()
    local top, body = 'local d = moongate.shared("d", { size = %d })', 'return d:incr("n", 1, 0), d:capacity(), "%s"'
    local gateway = start(top:format(65536), body:format "one", 2)
    assert.same({ 1, 65536, "one" }, ask(gateway))
    gateway:rewrite(script(top:format(65536), body:format "one", 2) .. '\nmoongate.route { path = "/x", plugins = {'
      .. ' { "direct-response" } } }')
    assert.equal(0, gateway:ask("reload").code)
    assert.same({ 2, 65536, "one" }, ask(gateway))
    gateway:rewrite(script(top:format(131072), body:format "two", 2))
    assert.equal(0, gateway:ask("reload").code)
    for i = 3, 12 do assert.same({ i, 65536, "two" }, ask(gateway)) end
    local said = 0
    for line in gateway:log():gmatch "[^\n]+" do
      if line:find('warn .*shared dictionary "d" keeps its 65536 bytes: 131072 take a restart') then said = said + 1 end
    end
    assert.equal(1, said, gateway:log())
  end))

  it("is one by its name, and the size that is named holds", h.test(function()
    local gateway = start('local a = moongate.shared("one")\nlocal b = moongate.shared("one", { size = 100000 })\n' ..
      'local c = moongate.shared("two")', [[
      a:set("k", "a"); c:set("k", "c")
      return b:get("k"), moongate.shared("one"):get("k"), moongate.shared("two"):get("k"), a:capacity(), c:capacity(), tostring(a)
    ]])
    assert.same({ "a", "a", "c", 100000, 1048576, 'moongate.shared "one"' }, ask(gateway))
  end))

  it("passes check where it is only named, and is refused by what is wrong", h.test(function()
    local result = check [[
local d = moongate.shared("d", { size = 20000 })
moongate.route { path = "/", access = function(exchange) exchange:respond(200, d:get("x")) end }
moongate.timer.every(1, function() d:flush_expired(100) end)
]]
    assert.equal(0, result.code, result.stderr)
    for text, expected in pairs {
      ['moongate.shared()'] = "moongate.shared takes a name first, got nil",
      ['moongate.shared ""'] = "moongate.shared: a name has 1 to 255 bytes",
      ['moongate.shared(("n"):rep(256))'] = "moongate.shared: a name has 1 to 255 bytes",
      ['moongate.shared("d", 5)'] = "moongate.shared takes a table second, { size = bytes }, got number",
      ['moongate.shared("d", { size = 100 })'] = "moongate.shared: size is 100; it is bytes, from 16384 to 274877906944",
      ['moongate.shared("d", { size = "10m" })'] = "moongate.shared: size is string; it is bytes",
      ['moongate.shared("d", { size = 20000.5 })'] = "moongate.shared: size is 20000.5; it is bytes",
      ['moongate.shared("d", { len = 20000 })'] = "moongate.shared: unknown key len; there is size",
      ['moongate.shared("d"):get "x"'] = 'shared dictionary "d" can be used in phases, timers and init_worker, not while '
        .. "the script is evaluated",
      ['moongate.shared("d"):incr("x", 1, 0)'] = 'shared dictionary "d" can be used in phases',
      ['moongate.shared("d"):set("x", 1)'] = 'shared dictionary "d" can be used in phases',
      ['moongate.shared("d"):set("x", nil)'] = 'shared dictionary "d" can be used in phases',
    } do
      result = check("\n" .. text .. "\n")
      assert.equal(1, result.code, text)
      assert.is_not_nil(result.stderr:find("gateway.lua:5: " .. expected, 1, true), text .. ": " .. result.stderr)
    end
  end))

  it("says at the line of the call which argument cannot be right", h.test(function()
    local gateway = start('local d = moongate.shared("d")', [[
      local out = {}
      for i, call in ipairs {
        function() d:set("k", 1, -1) end, function() d:set("k", 1, "soon") end, function() d:set("k", 1, 0, -1) end,
        function() d:set("k", 1, 0, 2^32) end, function() d:incr("k") end, function() d:incr("k", 1, {}) end,
        function() d:incr("k", 1, nil, 5) end, function() d:incr("k", 1, 0, -5) end, function() d:expire("k") end,
        function() d:get_keys(-1) end, function() d:flush_expired("x") end, function() d:set("k", 1, 0/0) end,
      } do out[i] = select(2, pcall(call)):gsub("^.*gateway.lua:%d+: ", "at ") end
      return unpack(out)
    ]])
    local seconds, flags = "takes seconds, 0 or more", "at flags are a number from 0 to 4294967295"
    assert.same({ "at the time to live " .. seconds, "at the time to live " .. seconds, flags, flags,
      "at incr takes a number second, got nil", "at incr takes a number as init, got table", "at incr takes init_ttl with init only",
      "at init_ttl of incr " .. seconds, "at expire " .. seconds, "at get_keys takes a number of keys, 0 or more",
      "at flush_expired takes a number of keys, 0 or more", "at the time to live " .. seconds }, ask(gateway))
  end))

  it("lists keys of any number and length", h.test(function()
    local gateway = start('local d = moongate.shared("d", { size = 33554432 })', [[
      for i = 1, 70000 do d:set("key " .. i, i) end
      local some, all = d:get_keys(), d:get_keys(0)
      local seen, count = {}, 0
      for _, key in ipairs(all) do if not seen[key] and d:get(key) then seen[key] = true; count = count + 1 end end
      d:flush_all()
      for i = 1, 40 do d:set(("k"):rep(60000) .. i, i) end
      local lens = 0
      for _, key in ipairs(d:get_keys()) do lens = lens + #key end
      return #some, #all, count, lens
    ]])
    assert.same({ 1024, 65536, 65536, 40 * 60000 + 9 + 31 * 2 }, ask(gateway))
  end))
end)
