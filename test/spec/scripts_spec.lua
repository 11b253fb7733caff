-- Every script that is shipped starts and answers.
local h = require "test.support.harness"
local uv = require "luv"

local names = {}
local request = uv.fs_scandir "scripts"
while request do
  local name, kind = uv.fs_scandir_next(request)
  if not name then break end
  if kind == "file" and name:find "%.lua$" then names[#names + 1] = name end
end
table.sort(names)

-- The script on a port of its own: every port becomes 0.
local function on_free_port(name)
  local file = assert(io.open("scripts/" .. name))
  local text = file:read "*a"
  file:close()
  return (text:gsub("port%s*=%s*[^,}]+", "port = 0"))
end

describe("scripts", function()
  it("are there", function() assert.is_true(#names > 0) end)

  for _, name in ipairs(names) do
    it(name .. " passes check", h.test(function()
      local result = h.exec { "check", "scripts/" .. name }
      assert.equal(0, result.code, result.stdout .. result.stderr)
    end))

    it(name .. " starts and answers", h.test(function()
      local gateway = h.gateway { config = on_free_port(name) }
      local response = gateway:get "/"
      -- Backends of an example may be missing here; the gateway must answer all the same.
      assert.is_true(response.status == 200 or response.status == 404 or response.status == 502, response.raw)
      if name == "hello.lua" then assert.equal(200, response.status) end
    end))
  end
end)
