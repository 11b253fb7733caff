-- The turn of the tests themselves (test/support/loop.lua): what a wait promises.
local h = require "test.support.harness"

-- Works without a turn of the loop, as a test does whose machine has other work.
local function work(ms)
  local stop = h.now_ms() + ms
  while h.now_ms() < stop do end
end

local function took_ms(fn)
  local start = h.now_ms()
  fn()
  return h.now_ms() - start
end

describe("a wait", function()
  local function test(body)
    return function() h.run(body) end
  end

  it("whose time came before the loop turned does not sleep until the next timer", test(function()
    local task = h.task(h.pass, 5)
    work(30)
    assert.is_true(took_ms(function()
      h.loop.try_wait(task.ended, 3000, function() return task.done end)
    end) < 2000)
  end))

  it("that is cut off by the end of the test is cut off then", function()
    local took = took_ms(function()
      local ok, err = pcall(h.run, function()
        h.task(h.pass, 3000)
        work(30)
        h.pass(5000)
      end, 20)
      assert.is_false(ok)
      assert.is_not_nil(err:find "the test did not end within 20 ms")
    end)
    assert.is_true(took < 20 * h.loop.scale + 2000)
  end)

  it("lasts its time, however long the test has worked before", test(function()
    work(50)
    assert.is_true(took_ms(function() h.pass(40) end) >= 39)
  end))

  it("is met by a signal of the same turn, and by one that comes with its deadline", test(function()
    local signal, is_set = h.loop.signal(), false
    h.task(function()
      h.turn()
      is_set = true
      signal:fire()
    end)
    assert.is_true(h.loop.try_wait(signal, 1000, function() return is_set end))
    is_set = false
    h.task(function()
      h.pass(10)
      is_set = true
      signal:fire()
    end)
    work(5)
    assert.is_true(h.loop.try_wait(signal, 2000, function() return is_set end))
  end))
end)
