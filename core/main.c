// Boots the command line, which is Lua, and hands it what the gateway can do. Decides nothing.
#include "filter/shipped.h"
#include "gateway/gateway.h"
#include "script/script.h"

int main(int argc, char **argv)
{
    struct moon_cli_ops ops = moon_gateway_cli_ops(moon_filter_builtins);
    return moon_cli_main(argc, argv, &ops);
}
