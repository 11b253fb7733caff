-- A worker that hangs is seen from outside; one that has nothing to do is not taken for one.
local cjson = require "cjson.safe"
local uv = require "luv"
local h = require "test.support.harness"

if not h.has_binary { is_test = true } then
  describe("heartbeat", function() pending "no binary with test filters" end)
  return
end

local function gateway_of(workers, seconds)
  return h.gateway {
    is_test = true, settings = { workers = workers }, upstreams = { backend = { "builtin:echo" } },
    routes = {
      { path = "/", backends = "backend" },
      { path = "/block", backends = "backend", plugins = { { "test", rewrite = { block = seconds } } } },
    },
  }
end

local function wait_ready(gateway, status)
  local deadline, response = uv.hrtime() + 10e9 * h.loop.scale
  repeat
    response = gateway:admin "/readyz"
    if response.status == status then return response end
    h.pass(20)
  until uv.hrtime() > deadline
  error("/readyz stays " .. response.status)
end

describe("the heartbeat of workers", function()
  it("tells of one that hangs, by name, and of its end #threads", h.test(function()
    local gateway = gateway_of(2, 2.5)
    local client = gateway:connect()
    assert.equal(200, gateway:admin("/readyz").status)
    client:send "GET /block HTTP/1.1\r\nHost: h.example\r\n\r\n"
    gateway:wait_log "blocks in rewrite"
    local response = wait_ready(gateway, 503)
    assert.equal("application/json", response.headers["content-type"])
    local answer = cjson.decode(response.body)
    assert.equal(false, answer.ready)
    assert.equal(1, #answer.stalled)
    local worker = answer.stalled[1].worker
    assert.is_true(worker == 0 or worker == 1)
    assert.is_true(answer.stalled[1].turn_ms >= 1000)
    local metrics = gateway:metrics()
    assert.equal(1, metrics[('moongate_worker_stalled{worker="%d"}'):format(worker)])
    assert.equal(0, metrics[('moongate_worker_stalled{worker="%d"}'):format(1 - worker)])
    assert.equal(200, gateway:admin("/healthz").status)
    -- nor does its list of connections come; the others' does
    local missing = gateway:ask_json("/connections").missing
    assert.is_true(#missing <= 1)
    assert.equal(200, h.read_response(client).status)
    wait_ready(gateway, 200)
    assert.equal(0, gateway:metrics()[('moongate_worker_stalled{worker="%d"}'):format(worker)])
  end))

  it("is not missed where there is nothing to do", h.test(function()
    local gateway = gateway_of(2, 0)
    gateway:get "/"
    h.pass(1500)
    assert.equal(200, gateway:admin("/readyz").status)
    local metrics = gateway:metrics()
    assert.equal(0, metrics['moongate_worker_stalled{worker="0"}'])
    assert.equal(0, metrics['moongate_worker_stalled{worker="1"}'])
  end))

  it("a list of connections comes without the worker that hangs", h.test(function()
    local gateway = gateway_of(1, 2)
    local client = gateway:connect()
    client:send "GET /block HTTP/1.1\r\nHost: h.example\r\n\r\n"
    gateway:wait_log "blocks in rewrite"
    local answer = gateway:ask_json "/connections"
    assert.same({ 0 }, answer.missing)
    assert.equal(0, #answer.connections)
    assert.equal(200, h.read_response(client).status)
    assert.equal(0, #gateway:ask_json("/connections").missing)
  end))
end)
