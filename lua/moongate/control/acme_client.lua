--- ACME (RFC 8555) with one account at one CA: what is asked and answered, and nothing of when or why.
---
---   directory -> account -> order -> authorization, its challenge answered -> finalize -> certificate
---
--- What fails gives nil and a fault: { text = , kind = the CA's word for it, is_soon = nobody was reached, so it costs nobody
--- anything to try again soon, is_refused = the CA has looked and said no, is_end = the gateway ends, retry_after = seconds that
--- the CA asks for }.

local json = require "moongate.json"
local native = require "moongate._core.native"
local wait = require "moongate._core.wait"

local client = {}
client.__index = client

local PROBLEM = "urn:ietf:params:acme:error:"
local NONCE_TRIES = 8
local POLL_MAX = 300 -- seconds for one order or authorization
local NONCES_MAX = 8
local DIRECTORY_AGE = 3600
local MONTHS = {
  Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10,
  Nov = 11, Dec = 12,
}

---@param settings table directory, account (path of its key), email, ca, eab_kid, eab_secret
function client.new(settings)
  return setmetatable({ settings = settings, nonces = {} }, client)
end

-- ---- HTTP

local function header(answer, name)
  local fields = answer.fields
  for i = 1, #fields, 2 do
    if fields[i]:lower() == name then return fields[i + 1] end
  end
end

-- Days since 1970-01-01 of a date of the Gregorian calendar.
local function days_of(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400) +
    math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

--- Seconds from now that a Retry-After (RFC 9110 10.2.3) asks for: a number, or a date.
function client.retry_after(text, now)
  if not text then return nil end
  if text:find "^%d+$" then return tonumber(text) end
  local day, name, year, hour, minute, second =
    text:match "^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$"
  if not MONTHS[name] then return nil end
  local at = days_of(tonumber(year), MONTHS[name], tonumber(day)) * 86400 + hour * 3600 +
    minute * 60 + second
  return math.max(0, at - now)
end

-- For the log: one line, and not too long.
local function clean(text)
  text = tostring(text):gsub("[%c]+", " ")
  return #text > 400 and text:sub(1, 400) .. "..." or text
end

-- Of a call that has brought nothing.
local function unreached(host, why)
  return { text = host .. ": " .. why, is_soon = true, is_end = why == "canceled" }
end

local function ask(self, method, url, body)
  local fields = { "User-Agent", "moongate" }
  if body then
    fields[3], fields[4] = "Content-Type", "application/jose+json"
  end
  if type(url) ~= "string" then return nil, { text = "the CA names no URL for the next step" } end
  local host = url:match "^https://([^/?#]+)"
  if not host then return nil, { text = "not an https URL: " .. clean(url) } end
  local call, why = native.call_start(method, url, "", fields, body or "", 30, 10, 1048576,
    self.settings.ca)
  if not call then return nil, unreached(host, why) end
  wait.wait()
  local status, answer_fields, text = native.call_take(call)
  if not status then return nil, unreached(host, answer_fields) end
  local answer = { status = status, fields = answer_fields, body = text, host = host }
  local nonce = header(answer, "replay-nonce")
  if nonce and #self.nonces < NONCES_MAX then self.nonces[#self.nonces + 1] = nonce end
  return answer
end

-- An answer that is no success, as a fault (RFC 7807).
local function fault_of(answer)
  local problem = json.decode(answer.body)
  problem = type(problem) == "table" and problem or {}
  local kind = type(problem.type) == "string" and problem.type or ""
  kind = kind:sub(1, #PROBLEM) == PROBLEM and kind:sub(#PROBLEM + 1) or kind
  local text = ("%s answered %d"):format(answer.host, answer.status)
  if kind ~= "" then text = text .. " " .. kind end
  if problem.detail then text = text .. ": " .. tostring(problem.detail) end
  return {
    text = clean(text), kind = kind, status = answer.status, is_soon = answer.status >= 500,
    is_refused = answer.status < 500,
    retry_after = client.retry_after(header(answer, "retry-after"), native.time()),
  }
end

-- ---- the directory

local function directory(self)
  if self.urls and native.time() - self.urls_at < DIRECTORY_AGE then return self.urls end
  local answer, fault = ask(self, "GET", self.settings.directory)
  if not answer then return nil, fault end
  if answer.status ~= 200 then return nil, fault_of(answer) end
  local urls = json.decode(answer.body)
  if type(urls) ~= "table" or type(urls.newNonce) ~= "string" then
    return nil, { text = self.settings.directory .. " is no ACME directory" }
  end
  self.urls, self.urls_at = urls, native.time()
  return urls
end

local function nonce(self)
  local kept = table.remove(self.nonces)
  if kept then return kept end
  local urls, fault = directory(self)
  if not urls then return nil, fault end
  local answer
  answer, fault = ask(self, "HEAD", urls.newNonce)
  if not answer then return nil, fault end
  kept = table.remove(self.nonces)
  if not kept then return nil, fault_of(answer) end
  return kept
end

-- ---- signed requests (RFC 8555 6.2)

local function jwk(self)
  return { crv = "P-256", kty = "EC", x = self.x, y = self.y }
end

--- RFC 7638 3: the members in their order, nothing between them.
function client:thumbprint()
  return native.acme.digest(('{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}'):format(self.x, self.y))
end

--- A JWS in the flattened form (RFC 7515 7.2.2).
function client:sign(protected, payload)
  local acme = native.acme
  local head, body = acme.base64(json.encode(protected)), acme.base64(payload)
  return json.encode {
    protected = head, payload = body, signature = acme.sign(self.key, head .. "." .. body),
  }
end

-- `payload`: JSON, or "" to read (POST-as-GET). The CA may refuse a nonce at any time (6.5): then the next is taken.
local function post(self, url, payload, with_key)
  for try = 1, NONCE_TRIES do
    local fresh, fault = nonce(self)
    if not fresh then return nil, fault end
    local protected = { alg = "ES256", nonce = fresh, url = url }
    if with_key then protected.jwk = jwk(self) else protected.kid = self.kid end
    local answer
    answer, fault = ask(self, "POST", url, self:sign(protected, payload))
    if not answer then return nil, fault end
    if answer.status < 400 then return answer end
    fault = fault_of(answer)
    if fault.kind ~= "badNonce" or try == NONCE_TRIES then return nil, fault end
  end
end

local function post_for_object(self, url, payload)
  local answer, fault = post(self, url, payload)
  if not answer then return nil, fault end
  local object = json.decode(answer.body)
  if type(object) ~= "table" then
    return nil, { text = answer.host .. ": what came is no JSON object" }
  end
  return object, answer
end

-- ---- the account

local function load_key(self)
  if self.key then return true end
  local path = self.settings.account
  local text, why, is_missing = native.acme.read(path)
  if not text and not is_missing then return nil, { text = ("%s: %s"):format(path, why) } end
  if not text then
    text = native.acme.key_new()
    local ok, err = native.acme.write(path, text)
    if not ok then return nil, { text = ("%s: %s"):format(path, err) } end
  end
  local x, y = native.acme.key_public(text)
  if not x then return nil, { text = path .. " holds no ECDSA key on P-256" } end
  self.key, self.x, self.y = text, x, y
  return true
end

-- RFC 8555 7.3.4: the CA's own account vouches for ours.
local function binding(self, url)
  local acme, settings = native.acme, self.settings
  local head = acme.base64(json.encode { alg = "HS256", kid = settings.eab_kid, url = url })
  local payload = acme.base64(json.encode(jwk(self)))
  local signature = acme.hmac(settings.eab_secret, head .. "." .. payload)
  if not signature then return nil, { text = "eab.secret is not base64url" } end
  return { protected = head, payload = payload, signature = signature }
end

-- One with this key that is there already is given, with the address it has.
local function update_contact(self, answer, contact)
  local account = json.decode(answer.body)
  local known = type(account) == "table" and type(account.contact) == "table" and account.contact
  if answer.status ~= 200 or not contact or (known and known[1] == contact[1]) then return true end
  local done, fault = post(self, self.kid, json.encode { contact = contact })
  if not done then return nil, fault end
  return true
end

local function register(self, urls)
  local settings = self.settings
  local contact = settings.email and { "mailto:" .. settings.email }
  local wish = { termsOfServiceAgreed = true, contact = contact }
  if settings.eab_kid then
    local bound, fault = binding(self, urls.newAccount)
    if not bound then return nil, fault end
    wish.externalAccountBinding = bound
  end
  local answer, fault = post(self, urls.newAccount, json.encode(wish), true)
  if not answer then return nil, fault end
  self.kid = header(answer, "location")
  if not self.kid then return nil, { text = answer.host .. " gave the account no URL" } end
  return update_contact(self, answer, contact)
end

-- One at a time: several hosts begin together.
local function account(self)
  while self.is_registering do wait.sleep(0.05) end
  if self.kid then return self.urls end
  self.is_registering = true
  local done, fault = load_key(self)
  local urls
  if done then urls, fault = directory(self) end
  if urls then done, fault = register(self, urls) end
  self.is_registering = false
  if not urls or not done then return nil, fault end
  return urls
end

-- ---- polling

-- Reads an object until `is_over` says so, as often as the CA likes.
local function poll(self, url, is_over)
  local pause, spent = 0.25, 0
  while true do
    local object, answer = post_for_object(self, url, "")
    if not object then return nil, answer end
    if is_over(object) then return object end
    if spent > POLL_MAX then
      return nil, { text = ("%s has not come to an end in %d s"):format(answer.host, POLL_MAX) }
    end
    local wished = client.retry_after(header(answer, "retry-after"), native.time())
    pause = math.min(pause * 2, 10)
    local seconds = math.min(wished or pause, 60)
    seconds = math.max(seconds, 0.5)
    wait.sleep(seconds)
    spent = spent + seconds
  end
end

-- ---- authorizations

local function challenges_of(authorization)
  local out = {}
  if type(authorization.challenges) ~= "table" then return out end
  for _, challenge in ipairs(authorization.challenges) do
    if type(challenge) == "table" then out[#out + 1] = challenge end
  end
  return out
end

local function challenge_of(authorization, kind)
  for _, challenge in ipairs(challenges_of(authorization)) do
    if challenge.type == kind then return challenge end
  end
end

-- What the CA has found wrong.
local function refusal(authorization)
  for _, challenge in ipairs(challenges_of(authorization)) do
    if type(challenge.error) == "table" then
      local why = challenge.error.detail or challenge.error.type
      return ("%s: %s"):format(challenge.type, tostring(why))
    end
  end
  return "the authorization is " .. tostring(authorization.status)
end

local function prove(self, host, url, challenge)
  local token = challenge.token
  if type(token) ~= "string" or not token:find "^[%w_-]+$" then
    return nil, { text = "the CA gave a challenge without a token" }
  end
  if not native.acme.challenge(host, token, token .. "." .. self:thumbprint()) then
    return nil, { text = "the challenge cannot be answered" }
  end
  local started, fault = post(self, challenge.url, "{}")
  local ended
  if started then
    ended, fault = poll(self, url, function(object)
      return object.status ~= "pending" and object.status ~= "processing"
    end)
  end
  native.acme.unchallenge(token)
  if not ended then return nil, fault end
  if ended.status == "valid" then return true end
  return nil, { text = clean(refusal(ended)), is_refused = true }
end

local function authorize(self, host, url, kind)
  local authorization, fault = post_for_object(self, url, "")
  if not authorization then return nil, fault end
  if authorization.status == "valid" then return true end
  if authorization.status ~= "pending" then
    return nil, { text = clean(refusal(authorization)), is_refused = true }
  end
  local challenge = challenge_of(authorization, kind)
  if not challenge then
    return nil, { text = "the CA does not offer " .. kind, is_refused = true }
  end
  return prove(self, host, url, challenge)
end

-- ---- orders

local function refused_order(order)
  local problem = type(order.error) == "table" and order.error or {}
  local text = "the order is " .. tostring(order.status)
  if problem.detail then text = text .. ": " .. tostring(problem.detail) end
  return { text = clean(text), is_refused = true }
end

local function begin(self, urls, host)
  local wish = json.encode { identifiers = { { type = "dns", value = host } } }
  local order, answer = post_for_object(self, urls.newOrder, wish)
  if not order then return nil, answer end
  local url = header(answer, "location")
  if not url or type(order.authorizations) ~= "table" then
    return nil, { text = answer.host .. " gave no order" }
  end
  return order, url
end

local function finish(self, order, url, key, host)
  local ready, fault = poll(self, url, function(object)
    return object.status ~= "pending"
  end)
  if not ready then return nil, fault end
  if ready.status == "ready" then
    local request, why = native.acme.request(key, host)
    if not request then return nil, { text = why } end
    local done
    done, fault = post(self, order.finalize, json.encode { csr = request })
    if not done then return nil, fault end
  end
  ready, fault = poll(self, url, function(object)
    return object.status == "valid" or object.status == "invalid"
  end)
  if not ready then return nil, fault end
  if ready.status ~= "valid" then return nil, refused_order(ready) end
  return post(self, ready.certificate, "")
end

local function try(self, host, kind)
  local urls, fault = account(self)
  if not urls then return nil, fault end
  local order, url = begin(self, urls, host)
  if not order then return nil, url end
  for _, authorization in ipairs(order.authorizations) do
    local done
    done, fault = authorize(self, host, authorization, kind)
    if not done then return nil, fault end
  end
  local key = native.acme.key_new()
  local answer
  answer, fault = finish(self, order, url, key, host)
  if not answer then return nil, fault end
  local bundle = key .. answer.body
  local begins, why = native.acme.inspect(bundle, host)
  if not begins then return nil, { text = "what the CA sent " .. why } end
  return bundle
end

--- A certificate for a host, proved by a challenge of that kind: PEM with its new key and the chain.
---@param host string
---@param kind "http-01"|"tls-alpn-01"
---@return string? pem, table? fault
function client:obtain(host, kind)
  local bundle, fault = try(self, host, kind)
  if not bundle and fault.kind == "accountDoesNotExist" and self.kid then -- a CA that forgets
    self.kid = nil
    bundle, fault = try(self, host, kind)
  end
  if not bundle and fault.is_soon then self.urls = nil end
  return bundle, fault
end

return client
