-- What the lint scripts share: files of a tree, C source without comments and strings, and the report.
local tree = {}

-- Paths below root/dir that end in one of the suffixes, sorted, relative to root.
function tree.files(root, dir, ...)
  local names = {}
  for _, suffix in ipairs { ... } do names[#names + 1] = "-name '*" .. suffix .. "'" end
  local command = ("cd '%s' && find %s -type f \\( %s \\) 2>/dev/null | LC_ALL=C sort")
    :format(root, dir, table.concat(names, " -o "))
  local out = {}
  local pipe = assert(io.popen(command))
  for path in pipe:lines() do out[#out + 1] = path end
  pipe:close()
  return out
end

function tree.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

function tree.lines(text)
  local out = {}
  for line in (text:gsub("\n*$", "") .. "\n"):gmatch "([^\n]*)\n" do out[#out + 1] = line end
  return out
end

local function blank(text)
  return (text:gsub("[^\n]", " "))
end

-- C with comments, strings and character constants blanked; lines and columns stay.
function tree.code(text)
  local out, at = {}, 1
  while at <= #text do
    local start = text:find("[/\"']", at)
    if not start then break end
    local two = text:sub(start, start + 1)
    local stop = start
    if two == "//" then
      stop = (text:find("\n", start, true) or #text + 1) - 1
    elseif two == "/*" then
      stop = select(2, text:find("*/", start + 2, true)) or #text
    elseif two:sub(1, 1) ~= "/" then
      local quote = two:sub(1, 1)
      stop = start + 1
      while stop < #text and text:sub(stop, stop) ~= quote do
        stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
      end
    end
    out[#out + 1] = text:sub(at, start - 1)
    out[#out + 1] = stop == start and text:sub(start, start) or blank(text:sub(start, stop))
    at = stop + 1
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out)
end

-- Prints the problems and leaves with 1 if there are any.
function tree.finish(problems)
  for _, problem in ipairs(problems) do print(problem) end
  os.exit(#problems == 0 and 0 or 1)
end

return tree
