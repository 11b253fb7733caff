--- Errors that are the caller's: raised at the line of the script, whatever lies between it and here.

--- Raises the message with the place of the innermost function that is not the product's.
---@param message string
return function(message)
  local level = 2
  while true do
    local info = debug.getinfo(level, "S")
    if not info then break end
    if info.what ~= "C" and info.source:sub(1, 9) ~= "=moongate" then break end
    level = level + 1
  end
  error(message, level)
end
