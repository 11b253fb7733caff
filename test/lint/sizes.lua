-- Sizes and shape of core/ (luajit test/lint/sizes.lua [ROOT]): a file warns at 600 lines and fails at 1,000, main.c at 300,
-- a function at 100 unless the line above it says /* long: reason */. Basenames are unique; headers say #pragma once.
package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local tree = require "tree"
local root = arg[1] or "."

local FILE_WARN, FILE_FAIL, MAIN_FAIL, FUNCTION_FAIL = 600, 1000, 300, 100

local problems = {}

local function problem(path, line, text)
  problems[#problems + 1] = ("%s:%d: %s"):format(path, line, text)
end

local function check_file_len(path, count)
  local limit = path == "core/main.c" and MAIN_FAIL or FILE_FAIL
  if count > limit then
    problem(path, count, ("%d lines, at most %d: split it by noun"):format(count, limit))
  elseif count > FILE_WARN then
    print(("%s: warning: %d lines, aim at 300"):format(path, count))
  end
end

-- The line a function starts on, given the line of its brace: the signature may take several lines.
local function signature_line(raw, brace)
  local at = brace
  while at > 1 and raw[at - 1]:find "%S" and not raw[at - 1]:find "^[}/#]" and not raw[at - 1]:find ";%s*$"
    and not raw[at - 1]:find "%*/%s*$" do
    at = at - 1
  end
  return at
end

-- A brace alone in the first column opens a function (BreakBeforeBraces: Linux); the next one there closes it.
local function check_functions(path, raw, code)
  local brace
  for i, line in ipairs(code) do
    if line:find "^{%s*$" then
      brace = i
    elseif line:find "^}" and brace then
      local start, count = signature_line(raw, brace), i - brace - 1
      local reason = (raw[start - 1] or ""):match "/%* long: *(.-) *%*/"
      if count > FUNCTION_FAIL and (reason or "") == "" then
        problem(path, start, ("a function of %d lines: split it, or /* long: reason */ above it"):format(count))
      end
      brace = nil
    end
  end
end

local seen = {}
for _, path in ipairs(tree.files(root, "core", ".c", ".h")) do
  local text = tree.read(root .. "/" .. path)
  local raw = tree.lines(text)
  check_file_len(path, #raw)
  check_functions(path, raw, tree.lines(tree.code(text)))
  if path:find "%.h$" and not text:find "\n#pragma once\n" and not text:find "^#pragma once\n" then
    problem(path, 1, "no #pragma once")
  end
  if not raw[1]:find "^//" and not raw[1]:find "^/%*" then
    problem(path, 1, "a file opens with a comment that says what it is")
  end
  local base = path:match "[^/]+$"
  if seen[base] then problem(path, 1, "the same name as " .. seen[base]) end
  seen[base] = path
end
tree.finish(problems)
