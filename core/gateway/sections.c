// The sections of a configuration in rank order, and compiling with them.
#include "conf/settings.h"
#include "exchange/access.h"
#include "exchange/action.h"
#include "exchange/listener_plugins.h"
#include "filter/filter.h"
#include "gateway/gateway_priv.h"
#include "route/listener.h"
#include "route/route.h"
#include "script/filters.h"
#include "upstream/upstream.h"

#include <string.h>

static bool upstreams_are_same(const struct moon_snapshot *before, const struct moon_snapshot *now)
{
    return moon_access_counts_same(before, now) &&
           moon_upstreams_are_fresh(moon_snapshot_upstreams(before));
}

void moon_sections_init(struct moon_sections *sections,
                        const struct moon_filter_type *const *filters,
                        struct moon_registry *registry, struct moon_tls_hub *tls,
                        const struct moon_builtin *extra, struct moon_series_names *series)
{
    sections->builtins[0] = &moon_builtin_echo;
    sections->builtins[1] = extra;
    sections->access = moon_access_section;
    sections->access.series = series;
    sections->upstreams = moon_upstream_section;
    sections->upstream_parts = (struct moon_upstream_parts){sections->builtins, registry, tls};
    sections->upstreams.registry = &sections->upstream_parts;
    sections->upstreams.series = series;
    sections->upstreams.is_same = upstreams_are_same;
    sections->listeners = moon_listener_section;
    sections->listeners.registry = tls;
    sections->actions = moon_action_section;
    sections->filters = (struct moon_filter_registry){filters, &moon_script_filter_source};
    sections->actions.registry = &sections->filters;
    sections->actions.series = series;
    sections->listener_plugins = moon_listener_plugins_section;
    sections->listener_plugins.registry = &sections->filters;
    // access before its rank: it bounds the names that later sections count by
    const struct moon_section *order[SECTION_COUNT] = {
        &moon_settings_section,     &sections->access,   &sections->upstreams,
        &sections->listeners,       &moon_route_section, &sections->actions,
        &sections->listener_plugins};
    memcpy(sections->order, order, sizeof order);
}

int moon_sections_compile(const struct moon_sections *sections, struct moon_model *model,
                          const struct moon_snapshot *before, struct moon_report *report,
                          struct moon_snapshot **out)
{
    struct moon_conf_args args = {.model = model,
                                  .sections = sections->order,
                                  .section_count = SECTION_COUNT,
                                  .before = before,
                                  .report = report};
    int err = moon_conf_compile(&args, out);
    if (err)
        moon_model_free(model);
    else
        moon_snapshot_adopt(*out, model);
    return err;
}
