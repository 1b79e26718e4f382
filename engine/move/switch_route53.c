#include "engine/move/switch_route53.h"

#include <strings.h>

#include "aws/route53.h"
#include "engine/base/log.h"

#define LONG_TTL 60

typedef struct RouteSwitch {
    Switch base;
    Arena arena;
    Aws *aws;
    const char *zone_name;
    const char *record_name;
    unsigned ttl;
    Route53Zone zone;
    Route53Record *record; /* as it was read; NULL: not read yet */
    const char *change;    /* to wait for; NULL: nothing was changed */
} RouteSwitch;

static bool same_host(const char *a, const char *b)
{
    size_t x = strlen(a);
    size_t y = strlen(b);

    x -= x && a[x - 1] == '.';
    y -= y && b[y - 1] == '.';
    return x == y && strncasecmp(a, b, x) == 0;
}

static bool read_record(RouteSwitch *self, Err *err)
{
    bool found =
        self->zone_name
            ? route53_find_zone(self->aws, self->zone_name, &self->arena, &self->zone, err)
            : route53_zone_of(self->aws, self->record_name, &self->arena, &self->zone, err);

    if (!found || !route53_find_record(self->aws, self->zone.id, self->record_name, "CNAME", NULL,
                                       &self->arena, &self->record, err))
        return false;
    if (!self->record) {
        err_fail(err, ERR_CONFIG, "zone %s has no CNAME %s", self->zone.name, self->record_name);
        return err_hint(err, "check --record and --zone");
    }
    if (self->record->values.count != 1) {
        err_fail(err, ERR_CONFIG, "%s is an alias, not a plain CNAME", self->record_name);
        return err_hint(err, "use --switch-command for anything but a plain CNAME");
    }
    return true;
}

static bool route_check(Switch *base, const SwitchEnds *ends, const char **about, Err *err)
{
    RouteSwitch *self = (RouteSwitch *)base;
    const char *now;
    long long ttl;

    if (!read_record(self, err))
        return false;
    now = self->record->values.at[0];
    ttl = (long long)aws_num_or(self->record->ttl, 300);
    if (!same_host(now, ends->old_host ? ends->old_host : "") &&
        !(ends->new_host && same_host(now, ends->new_host))) {
        err_fail(err, ERR_CONFIG, "%s points to %s, which is neither the old side nor the new one",
                 self->record_name, now);
        return err_hint(err, "check --record: it must be the name that the application uses for %s",
                        ends->old_host ? ends->old_host : "the old side");
    }
    if (ends->new_port && ends->old_port != ends->new_port) {
        err_fail(err, ERR_CONFIG,
                 "the new side listens on port %u, the old one on %u: a name can't carry that",
                 ends->new_port, ends->old_port);
        return err_hint(err, "give the new instance the old one's port, or use --switch-command");
    }
    if (ttl > LONG_TTL)
        log_warn(
            "clients may keep the old address for as long as the record's TTL; lower it a day before the cut-over",
            F_STR("record", self->record_name), F_U64("ttl_s", ttl));
    *about = arena_printf(&self->arena, "CNAME %s in zone %s, now %s, TTL %lld s",
                          self->record_name, self->zone.name, now, ttl);
    return true;
}

static bool route_move(Switch *base, const SwitchEnds *ends, Err *err)
{
    RouteSwitch *self = (RouteSwitch *)base;
    const char *value = ends->new_host;

    if (!self->record && !read_record(self, err))
        return false;
    self->record->values = (AwsNames){&value, 1};
    self->record->ttl = aws_num((int64_t)self->ttl);
    return route53_upsert(self->aws, self->zone.id, self->record, "keybridge: cut-over",
                          &self->arena, &self->change, err);
}

static bool route_settle(Switch *base, Err *err)
{
    RouteSwitch *self = (RouteSwitch *)base;

    return !self->change || route53_wait_change(self->aws, self->change, NULL, NULL, err);
}

static void route_free(Switch *base)
{
    RouteSwitch *self = (RouteSwitch *)base;

    arena_fini(&self->arena);
    free(self);
}

static const SwitchOps route_ops = {"Route 53", route_check, route_move, route_settle, route_free};

Switch *switch_route53(Aws *aws, const char *zone, const char *record, unsigned ttl)
{
    RouteSwitch *self = calloc(1, sizeof(*self));

    if (!self)
        abort();
    self->base.ops = &route_ops;
    arena_init(&self->arena, 4096);
    self->aws = aws;
    self->zone_name = zone;
    self->record_name = record;
    self->ttl = ttl;
    return &self->base;
}
