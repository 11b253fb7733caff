-- No mutable file-scope data (luajit test/lint/globals.lua BUILD_DIR [ALLOW_FILE]): reads the symbols of core's objects in
-- the build directory. What must be global stands in globals.allow with its reason.
package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local tree = require "tree"
local build = assert(arg[1], "usage: globals.lua BUILD_DIR [ALLOW_FILE]")
local allow_path = arg[2] or (arg[0]:match "^(.*/)" or "./") .. "globals.allow"

-- "core/io/signal.c name reason" a line.
local function read_allowed()
  local allowed = {}
  for i, line in ipairs(tree.lines(tree.read(allow_path))) do
    if line:find "^%s*[^#%s]" then
      local file, name, reason = line:match "^(%S+)%s+(%S+)%s+(%S.*)$"
      if not reason then error(("%s:%d: FILE NAME REASON, please"):format(allow_path, i)) end
      allowed[file .. " " .. name] = i
    end
  end
  return allowed
end

local function is_mutable(section)
  return (section:find "^%.data" or section:find "^%.bss" or section:find "^%.tdata" or section:find "^%.tbss"
    or section == "*COM*") and not section:find "^%.data%.rel%.ro"
end

-- "name|value|class|type|size|line|section" a symbol, below "Symbols from FILE:".
local function mutable_symbols()
  local found, file = {}, nil
  local pipe = assert(io.popen("find '" .. build
    .. "' -path '*/core/*' -name '*.o' | LC_ALL=C sort | xargs -r nm --format=sysv --defined-only"))
  for line in pipe:lines() do
    file = line:match "^Symbols from .-/(core/[^:]*%.c)%.o:$" or file
    local name, kind, section = line:match "^([^| ]+) *|[^|]*|[^|]*| *([%w_]+)|[^|]*|[^|]*|(%S+)%s*$"
    if name and (kind == "OBJECT" or kind == "TLS") and is_mutable(section) then
      found[#found + 1] = { file = file, name = name:gsub("%.%d+$", "") }
    end
  end
  pipe:close()
  return found
end

local problems, allowed = {}, read_allowed()
local used = {}
for _, symbol in ipairs(mutable_symbols()) do
  local key = symbol.file .. " " .. symbol.name
  if not allowed[key] then
    problems[#problems + 1] = ("%s: `%s` is mutable file-scope data"):format(symbol.file, symbol.name)
  end
  used[key] = true
end
for key, line in pairs(allowed) do
  if not used[key] then
    problems[#problems + 1] = ("%s:%d: nothing is called `%s` any more"):format(allow_path, line, key)
  end
end
table.sort(problems)
tree.finish(problems)
