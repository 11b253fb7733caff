-- 2 spaces, 100 columns, no globals (HOUSE 22). Comments may be wider.
std = "luajit"
max_code_line_length = 100
max_comment_line_length = false
max_string_line_length = false
max_line_length = false
unused_args = false
include_files = { "**/*.lua", ".luacheckrc" }
-- they put the recorded world around a script
files["lua/moongate/_core/inputs.lua"] = { ignore = { "122" } }
files["lua/moongate/_core/coroutines.lua"] = { ignore = { "122" } }
exclude_files = { "lua/moongate/_meta" } -- generated, and never run
files["test/spec"] = { std = "luajit+busted" }
files["test"] = { max_code_line_length = 140 } -- bytes of requests
files["test/spec/data"] = { max_code_line_length = false } -- tables of cases
files["**/.luacheckrc"] = { std = "+luacheckrc" }
