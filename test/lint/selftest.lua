-- The lint must be able to fail: every rule meets a sample that breaks it, and one that does not
-- (luajit test/lint/selftest.lua, from the top of the repository).
local HEAD = "// A sample.\n"
local failures = 0

local function write(path, text)
  os.execute("mkdir -p '" .. path:match "^(.*)/" .. "'")
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

-- Runs the command in a new directory that holds these files ("{}" is its path); gives exit code and output.
local function run(files, command)
  local pipe = assert(io.popen "mktemp -d")
  local dir = pipe:read "*l"
  pipe:close()
  for path, text in pairs(files) do write(dir .. "/" .. path, text) end
  pipe = assert(io.popen("{ " .. command:gsub("{}", dir) .. "; } 2>&1; echo \"exit $?\""))
  local output = pipe:read "*a"
  pipe:close()
  os.execute("rm -r '" .. dir .. "'")
  return tonumber(output:match "exit (%d+)\n$"), output
end

local function fails(what, files, command, expected)
  local code, output = run(files, command)
  if code == 0 or not output:find(expected, 1, true) then
    failures = failures + 1
    print(("%s: expected a failure with %q, got exit %d:\n%s"):format(what, expected, code, output))
  end
end

local function passes(what, files, command)
  local code, output = run(files, command)
  if code ~= 0 then
    failures = failures + 1
    print(("%s: expected to pass, got exit %d:\n%s"):format(what, code, output))
  end
end

local function lines(count, text)
  return (text .. "\n"):rep(count)
end

local rooms, sizes = "luajit test/lint/rooms.lua {}", "luajit test/lint/sizes.lua {}"

-- rooms
fails("rank", { ["core/http/a.c"] = HEAD .. '#include "link/link.h"\n' }, rooms, "http (rank 2) includes")
fails("equal rank", { ["core/edge/a.c"] = HEAD .. '#include "script/script.h"\n' }, rooms, "edge (rank 7)")
fails("no room", { ["core/http/a.c"] = HEAD .. '#include "head.h"\n' }, rooms, "named from their room")
fails("new room", { ["core/misc/a.c"] = HEAD }, rooms, "no such room")
fails("lua", { ["core/exchange/a.c"] = HEAD .. "#include <lua.h>\n" }, rooms, "belongs to script")
fails("nghttp2", { ["core/link/a.c"] = HEAD .. "#include <nghttp2/nghttp2.h>\n" }, rooms, "belongs to http")
fails("uv", { ["core/gateway/a.c"] = HEAD .. "#include <uv.h>\n" }, rooms, "belongs to io")
fails("socket", { ["core/base/a.c"] = HEAD .. "#include <sys/socket.h>\n" }, rooms, "belongs to io")
fails("libc", { ["core/base/a.c"] = HEAD .. "#include <pthread.h>\n" }, rooms, "libc alone")
fails("clock", { ["core/obs/a.c"] = HEAD .. "int f(void)\n{\n    return clock_gettime(1, 0);\n}\n" }, rooms,
  "the world is io's alone")
passes("rooms", { ["core/link/a.c"] = HEAD .. '#include "link/link_priv.h"\n#include "io/loop.h"\n'
  .. '// #include <lua.h> and time(NULL)\nint f(struct x *x)\n{\n    return x->time(1, "rand()");\n}\n',
  ["core/io/b.c"] = HEAD .. "#include <uv.h>\n", ["core/script/c.c"] = HEAD .. "#include <lua.h>\n" }, rooms)

-- sizes
local function long_function(above)
  return HEAD .. "\n" .. above .. "int f(int a,\n      int b)\n{\n" .. lines(101, "    a++;") .. "}\n"
end
fails("long file", { ["core/http/a.c"] = HEAD .. lines(1000, "int x;") }, sizes, "at most 1000")
fails("long main", { ["core/main.c"] = HEAD .. lines(300, "int x;") }, sizes, "at most 300")
fails("long function", { ["core/http/a.c"] = long_function "" }, sizes, "core/http/a.c:3: a function of 101 lines")
fails("no reason", { ["core/http/a.c"] = long_function "/* long: */\n" }, sizes, "a function of 101 lines")
fails("no pragma", { ["core/http/a.h"] = HEAD .. "int x;\n" }, sizes, "no #pragma once")
fails("no comment", { ["core/http/a.c"] = "int x;\n" }, sizes, "opens with a comment")
fails("same name", { ["core/http/a.c"] = HEAD, ["core/link/a.c"] = HEAD }, sizes, "the same name as core/http/a.c")
passes("sizes", { ["core/http/a.c"] = long_function "/* long: a table of cases */\n",
  ["core/http/a.h"] = HEAD .. "#pragma once\n", ["core/http/b.c"] = HEAD .. lines(700, "int x;") }, sizes)

-- headers
fails("needy header", { ["core/http/a.h"] = HEAD .. "#pragma once\nsize_t f(void);\n" }, "test/lint/headers {}",
  "core/http/a.h: does not compile alone")
passes("headers", { ["core/http/a.h"] = HEAD .. "#pragma once\n#include <stddef.h>\nsize_t f(void);\n" },
  "test/lint/headers {}")

-- generated
local ABI = "#pragma once\nenum {\n    MOON_ABI_OK = 0,\n};\nint moon_abi_f(void);\n"
local INIT = "---@class moongate\nlocal moongate = {}\n\n--- It runs.\n---@param n integer\nfunction moongate.go(n)\n"
  .. "  return n\nend\n\nreturn moongate\n"
local function generated(change)
  return "cmake/generate {} && " .. change .. " && test/lint/generated {}"
end
local sources = { ["core/script/abi.h"] = ABI, ["lua/moongate/init.lua"] = INIT }
fails("stale abi", sources, generated "echo 'int moon_abi_g(void);' >>{}/core/script/abi.h", "_core/abi.lua is stale")
fails("stale stub", sources, generated "sed -i 's/It runs/It walks/' {}/lua/moongate/init.lua", "_meta is stale")
fails("edited stub", sources, generated "echo >>{}/lua/moongate/_meta/moongate.lua", "_meta is stale")
fails("forgotten stub", sources, generated "touch {}/lua/moongate/_meta/gone.lua", "_meta is stale")
fails("nothing generated", sources, "test/lint/generated {}", "_meta is stale")
passes("generated", sources, generated "grep -qx 'function moongate.go(n) end' {}/lua/moongate/_meta/moongate.lua"
  .. " && grep -qx 'int moon_abi_f(void);' {}/lua/moongate/_core/abi.lua")

-- globals
local function globals(allow)
  return "cd {} && gcc -fPIE -c core/io/a.c -o core/io/a.c.o && cd - >/dev/null && printf '%s\\n' '" .. allow
    .. "' >{}/allow && luajit test/lint/globals.lua {} {}/allow"
end
local mutable = { ["core/io/a.c"] = "int table[4];\nint f(void)\n{\n    static int n = 1;\n    return n++;\n}\n" }
fails("data", mutable, globals "", "core/io/a.c: `n` is mutable")
fails("bss", mutable, globals "core/io/a.c n counts", "core/io/a.c: `table` is mutable")
fails("pointers", { ["core/io/a.c"] = "int f(void);\nint (*g)(void) = f;\n" }, globals "", "`g` is mutable")
fails("stale", { ["core/io/a.c"] = "const int x = 1;\n" }, globals "core/io/a.c y gone", "nothing is called")
fails("reason", mutable, globals "core/io/a.c n", "FILE NAME REASON")
passes("globals", { ["core/io/a.c"] = "int f(void);\nint (*const g)(void) = f;\nconst int x = 1;\nint y;\n" },
  globals "core/io/a.c y a sample")

-- the tools, with our settings
fails("format", { ["core/http/a.c"] = "int f(void) { return 1; }\n" },
  "cp .clang-format {} && clang-format --dry-run --Werror {}/core/http/a.c", "clang-format-violations")
fails("clang-tidy", { ["core/http/a.c"] = "int f(int *p)\n{\n    p = 0;\n    return *p;\n}\n" },
  "cp .clang-tidy {} && clang-tidy --quiet {}/core/http/a.c -- -std=gnu11", "clang-analyzer-core.NullDereference")
fails("luacheck", { ["a.lua"] = "x = 1\n" }, "cp .luacheckrc {} && cd {} && luacheck --no-color .",
  "non-standard global")
fails("wide Lua", { ["a.lua"] = "return " .. ("1 + "):rep(30) .. "1\n" },
  "cp .luacheckrc {} && cd {} && luacheck --no-color .", "line is too long")

os.exit(failures == 0 and 0 or 1)
