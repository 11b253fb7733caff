-- Part of make format (luajit test/lint/hoist.lua FILE...): a trailing // comment that makes its line wider than 100
-- columns moves to a line of its own above. clang-format would break the code instead.
package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local tree = require "tree"

local COLUMNS = 100

local function hoisted(text)
  local out, code = {}, tree.lines(tree.code(text))
  for i, line in ipairs(tree.lines(text)) do
    local kept = code[i]:match "^.*%S"
    local comment = kept and #line > COLUMNS and line:sub(#kept + 1):match "^%s*(//.*)$"
    if comment then
      out[#out + 1] = line:match "^%s*" .. comment
      line = line:sub(1, #kept)
    end
    out[#out + 1] = line
  end
  return table.concat(out, "\n") .. "\n"
end

for _, path in ipairs(arg) do
  local text = tree.read(path)
  local new = hoisted(text)
  if new ~= text then
    local file = assert(io.open(path, "wb"))
    file:write(new)
    file:close()
  end
end
