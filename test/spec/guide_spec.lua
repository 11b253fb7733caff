-- Every ```lua snippet of lua/README.md runs. A snippet that requires "moongate" is a whole script; another one is a fragment, and
-- stands behind a listener and the upstreams "users" and "users-next". "-- plugins/NAME/FILE.lua" in its first line makes it a file
-- beside the scripts that follow. Its requests, which are made in this order:
--
--   -- GET /path -> 200 the whole body          -- GET / Name: value -> 200          -- POST /path body -> 200
local h = require "test.support.harness"
local certs = require "test.support.certs"
local uv = require "luv"

local PRELUDE = [[
local moongate = require "moongate"
moongate.listener { port = 8080, address = "127.0.0.1" }
]]

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

-- { line =, text = } in order.
local function snippets_of(path)
  local found, current, number = {}, nil, 0
  for line in read(path):gmatch "([^\n]*)\n" do
    number = number + 1
    if line == "```lua" then
      current = { line = number, lines = {} }
    elseif line == "```" and current then
      current.text = table.concat(current.lines, "\n") .. "\n"
      found[#found + 1] = current
      current = nil
    elseif current then
      current.lines[#current.lines + 1] = line
    end
  end
  return found
end

local function requests_of(snippet)
  local list = {}
  for _, line in ipairs(snippet.lines) do
    local method, path, more, status, body = line:match "^%-%- (%u+) (/%S*)(.-) %-> (%d+)%s?(.*)$"
    if method then
      more = more:gsub("^ ", "")
      local is_field = more:find "^[%w-]+: "
      list[#list + 1] = { line = line, method = method, path = path, fields = is_field and more .. "\r\n" or "",
        sent = is_field and "" or more, status = tonumber(status), body = body }
    end
  end
  return list
end

-- As a whole script, on this port.
local function complete(text, port)
  if not text:find('require "moongate"', 1, true) then
    local upstreams = {}
    for _, name in ipairs { "users", "users-next" } do
      if not text:find(('upstream { name = "%s"'):format(name), 1, true) then
        upstreams[#upstreams + 1] = ('moongate.upstream { name = "%s", endpoints = { "builtin:echo" } }\n'):format(name)
      end
    end
    local own_listener = text:find "moongate%.listener"
    text = (own_listener and PRELUDE:match "^[^\n]+\n" or PRELUDE) .. table.concat(upstreams) .. text
  end
  text = text:gsub("acme = {", 'acme = { directory = "https://127.0.0.1:1/",') -- nobody is to be bothered
  text = text:gsub("port = %d+", "port = " .. port):gsub("127%.0%.0%.1:8080", "127.0.0.1:" .. port)
  return text
end

-- Where the settings of a fragment are alternatives each of them is a script.
local function scripts_of(snippet)
  local _, count = snippet.text:gsub("moongate%.settings {", "")
  if count <= 1 then return { snippet.text } end
  local list = {}
  for line in snippet.text:gmatch "[^\n]+" do list[#list + 1] = line .. "\n" end
  return list
end

-- The certificates that a script names.
local function make_certificates(text, directory)
  if not text:find('cert = "', 1, true) then return end
  local set = certs.new()
  local function copy(from, name) write(directory .. "/" .. name, read(from)) end
  for name in text:gmatch 'cert = "(%w+)%.crt"' do
    local pair = set:issue { name = name, sans = "DNS:" .. name .. ".example" }
    copy(pair.cert, name .. ".crt")
    copy(pair.key, name .. ".key")
  end
  for name in text:gmatch 'ca = "(%w+%.pem)"' do copy(set.ca, name) end
  set:remove()
end

local function run(snippet, text, directory)
  local port = h.dead_port()
  make_certificates(text, directory)
  local path = directory .. "/gateway.lua"
  write(path, complete(text, port))
  local gateway = h.gateway { file = path, cwd = directory, args = { "--workers", "1" } }
  if text:find("acme = {", 1, true) then gateway:expect_log "error acme: no certificate for" end
  for _, request in ipairs(requests_of(snippet)) do
    local response = gateway:request(("%s %s HTTP/1.1\r\nHost: test.example\r\n%sContent-Length: %d\r\n\r\n%s"):format(
      request.method, request.path, request.fields, #request.sent, request.sent))
    assert.equal(request.status, response.status, request.line .. "\n" .. response.raw)
    if request.body ~= "" then assert.equal(request.body, (response.body:gsub("\n$", "")), request.line) end
  end
  gateway:stop()
end

local function make_directory()
  local path, directory = h.write_file ""
  os.remove(path)
  return directory
end

local function remove(directory)
  local listing = uv.fs_scandir(directory)
  while listing do
    local name, kind = uv.fs_scandir_next(listing)
    if not name then break end
    if kind == "directory" then remove(directory .. "/" .. name) else os.remove(directory .. "/" .. name) end
  end
  uv.fs_rmdir(directory)
end

describe("lua/README.md", function()
  local directory
  local snippets = snippets_of "lua/README.md"
  setup(function() directory = make_directory() end)
  teardown(function() remove(directory) end)

  it("has snippets", function() assert.is_true(#snippets > 10) end)

  for _, snippet in ipairs(snippets) do
    it("line " .. snippet.line .. " runs", h.test(function()
      local folder, file = snippet.lines[1]:match "^%-%- (plugins/[%w-]+)/(%w+%.lua)$"
      if folder then
        uv.fs_mkdir(directory .. "/plugins", 493) -- 0755
        uv.fs_mkdir(directory .. "/" .. folder, 493)
        return write(directory .. "/" .. folder .. "/" .. file, snippet.text)
      end
      for _, text in ipairs(scripts_of(snippet)) do run(snippet, text, directory) end
    end))
  end
end)
