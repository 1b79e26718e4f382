#include "aws/route53.h"

#include <strings.h>

#include "aws/client_impl.h"
#include "aws/sigv4.h"

#define VERSION    "/2013-04-01"
#define MOST_PAGES 2000
#define MOST_BODY  KIB(256)

/* Names ------------------------------------------------------------------------------------- */

static size_t bare_len(const char *name)
{
    size_t len = strlen(name);

    return len && name[len - 1] == '.' ? len - 1 : len;
}

static bool same_name(const char *a, const char *b)
{
    size_t len = bare_len(a);

    return len == bare_len(b) && strncasecmp(a, b, len) == 0;
}

/* Route 53 writes everything but letters, digits, - and _ as \ooo: "\052.example.com." is
 * "*.example.com." */
static const char *plain_name(const char *name, Arena *arena)
{
    char *out;
    size_t len = 0;

    if (!name || !strchr(name, '\\'))
        return name;
    out = arena_alloc(arena, strlen(name) + 1);
    while (*name) {
        bool escape = name[0] == '\\' && name[1] >= '0' && name[1] <= '3' && name[2] >= '0' &&
                      name[2] <= '7' && name[3] >= '0' && name[3] <= '7';

        out[len++] =
            escape ? (char)((name[1] - '0') * 64 + (name[2] - '0') * 8 + (name[3] - '0')) : *name;
        name += escape ? 4 : 1;
    }
    out[len] = '\0';
    return out;
}

static const char *bare_id(const char *id)
{
    const char *slash = id ? strrchr(id, '/') : NULL;

    return slash ? slash + 1 : id;
}

static const char *encoded(const char *text, Arena *arena)
{
    AUTO_BUF buf;

    buf_init(&buf, KIB(8));
    sigv4_encode(&buf, span_str(text), false);
    return arena_str_of(arena, buf_span(&buf));
}

static bool rest(Aws *aws, const char *operation, const char *path, const char *query,
                 const char *body, Arena *arena, const XmlNode **root, Err *err)
{
    return aws_rest(aws, &aws_service_route53, operation, path, query, body, arena, root, err);
}

/* Zones ------------------------------------------------------------------------------------- */

typedef struct Zones {
    Route53Zone *at;
    size_t count;
} Zones;

static void add_zones(const XmlNode *list, Arena *arena, Zones *all)
{
    Route53Zone *at =
        arena_array(arena, Route53Zone, all->count + xml_count(list, "HostedZone") + 1);

    if (all->count)
        memcpy(at, all->at, all->count * sizeof(*at));
    all->at = at;
    for (const XmlNode *node = xml_first(list, "HostedZone"); node;
         node = xml_next(node, "HostedZone")) {
        const char *id = bare_id(xml_text(node, "Id"));
        const char *name = plain_name(xml_text(node, "Name"), arena);

        if (id && name)
            all->at[all->count++] = (Route53Zone){
                .id = id, .name = name, .is_private = aws_is(xml_bool(node, "Config/PrivateZone"))};
    }
}

static bool list_zones(Aws *aws, Arena *arena, Zones *all, Err *err)
{
    const char *query = NULL;

    *all = (Zones){.count = 0};
    for (unsigned page = 0; page < MOST_PAGES; page++) {
        const XmlNode *root;
        const char *next;

        if (!rest(aws, "ListHostedZones", VERSION "/hostedzone", query, NULL, arena, &root, err))
            return false;
        add_zones(xml_at(root, "HostedZones"), arena, all);
        next = xml_text(root, "NextMarker");
        if (!aws_is(xml_bool(root, "IsTruncated")) || !next || !*next)
            return true;
        query = arena_printf(arena, "marker=%s", encoded(next, arena));
    }
    return err_fail(err, ERR_PROTOCOL, "Route 53 ListHostedZones: the pages don't come to an end");
}

/* Ids are upper-case letters and digits; a zone name has a dot. */
static bool is_id(const char *zone)
{
    return strncmp(zone, "/hostedzone/", 12) == 0 ||
           (zone[0] == 'Z' && strspn(zone, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == strlen(zone));
}

static bool get_zone(Aws *aws, const char *id, Arena *arena, Route53Zone *out, Err *err)
{
    const XmlNode *root;
    Zones one = {.count = 0};
    const char *path = arena_printf(arena, VERSION "/hostedzone/%s", encoded(bare_id(id), arena));

    if (!rest(aws, "GetHostedZone", path, NULL, NULL, arena, &root, err))
        return false;
    add_zones(root, arena, &one);
    if (one.count != 1)
        return err_fail(err, ERR_PROTOCOL, "Route 53 GetHostedZone: the answer has no zone");
    *out = one.at[0];
    return true;
}

static bool several_zones(Zones zones, const char *name, Err *err)
{
    AUTO_BUF ids;

    buf_init(&ids, 512);
    for (size_t i = 0; i < zones.count; i++)
        if (same_name(zones.at[i].name, name))
            buf_printf(&ids, "%s%s (%s)", ids.len ? ", " : "", zones.at[i].id,
                       zones.at[i].is_private ? "private" : "public");
    err_fail(err, ERR_CONFIG, "Route 53 has several zones called %s: %s", name, buf_str(&ids));
    return err_hint(err, "name the zone by its id");
}

static bool no_zone(const char *name, Err *err)
{
    err_fail(err, ERR_AWS, "Route 53 has no zone for \"%s\" in this account", name);
    return err_code(err, "NoSuchHostedZone");
}

static bool pick_zone(Zones zones, const char *name, Route53Zone *out, Err *err)
{
    size_t found = 0;

    for (size_t i = 0; i < zones.count; i++)
        if (same_name(zones.at[i].name, name)) {
            *out = zones.at[i];
            found++;
        }
    if (found == 0)
        return no_zone(name, err);
    return found == 1 || several_zones(zones, name, err);
}

bool route53_find_zone(Aws *aws, const char *zone, Arena *arena, Route53Zone *out, Err *err)
{
    Zones zones;

    if (is_id(zone))
        return get_zone(aws, zone, arena, out, err);
    return list_zones(aws, arena, &zones, err) && pick_zone(zones, zone, out, err);
}

static bool is_below(const char *name, const char *zone)
{
    size_t name_len = bare_len(name);
    size_t zone_len = bare_len(zone);

    if (name_len < zone_len || strncasecmp(name + name_len - zone_len, zone, zone_len) != 0)
        return false;
    return name_len == zone_len || name[name_len - zone_len - 1] == '.';
}

bool route53_zone_of(Aws *aws, const char *name, Arena *arena, Route53Zone *out, Err *err)
{
    const char *best = NULL;
    Zones zones;

    if (!list_zones(aws, arena, &zones, err))
        return false;
    for (size_t i = 0; i < zones.count; i++)
        if (is_below(name, zones.at[i].name) &&
            (!best || bare_len(zones.at[i].name) > bare_len(best)))
            best = zones.at[i].name;
    return best ? pick_zone(zones, best, out, err) : no_zone(name, err);
}

/* Records ----------------------------------------------------------------------------------- */

/* Attributes that this file can write again. One that it doesn't know would be lost by an UPSERT,
 * so it must be seen. */
static const char *unknown_attribute(const XmlNode *node)
{
    static const char *const known[] = {
        "Name",        "Type",          "SetIdentifier",          "Weight", "Region",
        "GeoLocation", "Failover",      "MultiValueAnswer",       "TTL",    "ResourceRecords",
        "AliasTarget", "HealthCheckId", "TrafficPolicyInstanceId"};

    for (const XmlNode *child = xml_first(node, NULL); child; child = xml_next(child, NULL)) {
        size_t i = 0;

        while (i < ARRAY_LEN(known) && strcmp(known[i], child->name) != 0)
            i++;
        if (i == ARRAY_LEN(known))
            return child->name;
    }
    return NULL;
}

static AwsNames read_values(const XmlNode *list, Arena *arena)
{
    AwsNames values = {.at =
                           arena_array(arena, const char *, xml_count(list, "ResourceRecord") + 1)};

    for (const XmlNode *node = xml_first(list, "ResourceRecord"); node;
         node = xml_next(node, "ResourceRecord"))
        if (xml_text(node, "Value"))
            values.at[values.count++] = xml_text(node, "Value");
    return values;
}

static void read_record(const XmlNode *node, Arena *arena, Route53Record *out)
{
    *out = (Route53Record){.name = plain_name(xml_text(node, "Name"), arena),
                           .type = xml_text(node, "Type"),
                           .ttl = xml_num(node, "TTL"),
                           .values = read_values(xml_at(node, "ResourceRecords"), arena),
                           .set_id = xml_text(node, "SetIdentifier"),
                           .weight = xml_num(node, "Weight"),
                           .region = xml_text(node, "Region"),
                           .failover = xml_text(node, "Failover"),
                           .health_check = xml_text(node, "HealthCheckId"),
                           .policy_instance = xml_text(node, "TrafficPolicyInstanceId"),
                           .multi_value = xml_bool(node, "MultiValueAnswer"),
                           .alias_zone = xml_text(node, "AliasTarget/HostedZoneId"),
                           .alias_name = xml_text(node, "AliasTarget/DNSName"),
                           .alias_health = xml_bool(node, "AliasTarget/EvaluateTargetHealth"),
                           .geo_continent = xml_text(node, "GeoLocation/ContinentCode"),
                           .geo_country = xml_text(node, "GeoLocation/CountryCode"),
                           .geo_subdivision = xml_text(node, "GeoLocation/SubdivisionCode"),
                           .rest = unknown_attribute(node)};
}

static bool add_records(const XmlNode *list, Arena *arena, Route53Records *all, Err *err)
{
    Route53Record *at =
        arena_array(arena, Route53Record, all->count + xml_count(list, "ResourceRecordSet") + 1);

    if (all->count)
        memcpy(at, all->at, all->count * sizeof(*at));
    all->at = at;
    for (const XmlNode *node = xml_first(list, "ResourceRecordSet"); node;
         node = xml_next(node, "ResourceRecordSet")) {
        read_record(node, arena, &all->at[all->count]);
        if (!all->at[all->count].name || !all->at[all->count].type)
            return err_fail(err, ERR_PROTOCOL,
                            "Route 53 ListResourceRecordSets: a record has no name or type");
        all->count++;
    }
    return true;
}

static const char *next_query(const XmlNode *root, Arena *arena)
{
    const char *name = xml_text(root, "NextRecordName");
    const char *type = xml_text(root, "NextRecordType");
    const char *set = xml_text(root, "NextRecordIdentifier");

    if (!aws_is(xml_bool(root, "IsTruncated")) || !name)
        return NULL;
    return arena_printf(arena, "%s%s%sname=%s%s%s", set ? "identifier=" : "",
                        set ? encoded(set, arena) : "", set ? "&" : "", encoded(name, arena),
                        type ? "&type=" : "", type ? encoded(type, arena) : "");
}

static bool records_page(Aws *aws, const char *zone_id, const char *query, Arena *arena,
                         Route53Records *all, const char **next, Err *err)
{
    const char *path =
        arena_printf(arena, VERSION "/hostedzone/%s/rrset", encoded(bare_id(zone_id), arena));
    const XmlNode *root;

    if (!rest(aws, "ListResourceRecordSets", path, query, NULL, arena, &root, err) ||
        !add_records(xml_at(root, "ResourceRecordSets"), arena, all, err))
        return false;
    *next = next_query(root, arena);
    return true;
}

bool route53_list_records(Aws *aws, const char *zone_id, Arena *arena, Route53Records *all,
                          Err *err)
{
    const char *query = NULL;

    *all = (Route53Records){.count = 0};
    for (unsigned page = 0; page < MOST_PAGES; page++) {
        if (!records_page(aws, zone_id, query, arena, all, &query, err))
            return false;
        if (!query)
            return true;
    }
    return err_fail(err, ERR_PROTOCOL,
                    "Route 53 ListResourceRecordSets: the pages don't come to an end");
}

static bool is_wanted(const Route53Record *record, const char *name, const char *type)
{
    return same_name(record->name, name) && strcmp(record->type, type) == 0;
}

/* Pages that start at the name and type, for as long as they hold it. */
static bool list_matching(Aws *aws, const char *zone_id, const char *name, const char *type,
                          Arena *arena, Route53Records *all, Err *err)
{
    const char *query =
        arena_printf(arena, "name=%s&type=%s", encoded(name, arena), encoded(type, arena));

    *all = (Route53Records){.count = 0};
    for (unsigned page = 0; query && page < MOST_PAGES; page++) {
        if (!records_page(aws, zone_id, query, arena, all, &query, err))
            return false;
        if (!all->count || !is_wanted(&all->at[all->count - 1], name, type))
            return true;
    }
    return true;
}

bool route53_find_record(Aws *aws, const char *zone_id, const char *name, const char *type,
                         const char *set_id, Arena *arena, Route53Record **found, Err *err)
{
    Route53Records all;
    AUTO_BUF others;

    *found = NULL;
    buf_init(&others, 512);
    if (!list_matching(aws, zone_id, name, type, arena, &all, err))
        return false;
    for (size_t i = 0; i < all.count; i++) {
        const char *set = all.at[i].set_id;

        if (!is_wanted(&all.at[i], name, type))
            continue;
        if (!set == !set_id && (!set || strcmp(set, set_id) == 0))
            *found = &all.at[i];
        else if (set)
            buf_printf(&others, "%s%s", others.len ? ", " : "", set);
    }
    if (*found || set_id || !others.len)
        return true;
    err_fail(err, ERR_CONFIG, "%s %s is a set of records, not one: %s", name, type,
             buf_str(&others));
    return err_hint(err, "name the one to change by its set identifier");
}

/* Changing ---------------------------------------------------------------------------------- */

static void put_text(Buf *xml, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<':
            buf_puts(xml, "&lt;");
            break;
        case '>':
            buf_puts(xml, "&gt;");
            break;
        case '&':
            buf_puts(xml, "&amp;");
            break;
        case '"':
            buf_puts(xml, "&quot;");
            break;
        default:
            buf_putc(xml, *text);
        }
    }
}

static void put_element(Buf *xml, const char *name, const char *text)
{
    if (!text)
        return;
    buf_printf(xml, "<%s>", name);
    put_text(xml, text);
    buf_printf(xml, "</%s>", name);
}

static void put_number(Buf *xml, const char *name, AwsNum number)
{
    if (number.set)
        buf_printf(xml, "<%s>%" PRId64 "</%s>", name, number.value, name);
}

static void put_flag(Buf *xml, const char *name, AwsBool flag)
{
    if (flag != AWS_UNSET)
        put_element(xml, name, flag == AWS_TRUE ? "true" : "false");
}

static void put_geo(Buf *xml, const Route53Record *record)
{
    if (!record->geo_continent && !record->geo_country && !record->geo_subdivision)
        return;
    buf_puts(xml, "<GeoLocation>");
    put_element(xml, "ContinentCode", record->geo_continent);
    put_element(xml, "CountryCode", record->geo_country);
    put_element(xml, "SubdivisionCode", record->geo_subdivision);
    buf_puts(xml, "</GeoLocation>");
}

static void put_values(Buf *xml, AwsNames values)
{
    if (!values.count)
        return;
    buf_puts(xml, "<ResourceRecords>");
    for (size_t i = 0; i < values.count; i++) {
        buf_puts(xml, "<ResourceRecord>");
        put_element(xml, "Value", values.at[i]);
        buf_puts(xml, "</ResourceRecord>");
    }
    buf_puts(xml, "</ResourceRecords>");
}

static void put_alias(Buf *xml, const Route53Record *record)
{
    if (!record->alias_name)
        return;
    buf_puts(xml, "<AliasTarget>");
    put_element(xml, "HostedZoneId", record->alias_zone);
    put_element(xml, "DNSName", record->alias_name);
    put_flag(xml, "EvaluateTargetHealth",
             record->alias_health == AWS_UNSET ? AWS_FALSE : record->alias_health);
    buf_puts(xml, "</AliasTarget>");
}

/* The order of the elements is the schema's. */
static void put_record(Buf *xml, const Route53Record *record)
{
    buf_puts(xml, "<ResourceRecordSet>");
    put_element(xml, "Name", record->name);
    put_element(xml, "Type", record->type);
    put_element(xml, "SetIdentifier", record->set_id);
    put_number(xml, "Weight", record->weight);
    put_element(xml, "Region", record->region);
    put_geo(xml, record);
    put_element(xml, "Failover", record->failover);
    put_flag(xml, "MultiValueAnswer", record->multi_value);
    put_number(xml, "TTL", record->ttl);
    put_values(xml, record->values);
    put_alias(xml, record);
    put_element(xml, "HealthCheckId", record->health_check);
    put_element(xml, "TrafficPolicyInstanceId", record->policy_instance);
    buf_puts(xml, "</ResourceRecordSet>");
}

bool route53_upsert(Aws *aws, const char *zone_id, const Route53Record *record, const char *comment,
                    Arena *arena, const char **change, Err *err)
{
    const char *path =
        arena_printf(arena, VERSION "/hostedzone/%s/rrset/", encoded(bare_id(zone_id), arena));
    const XmlNode *root;
    AUTO_BUF xml;

    buf_init(&xml, MOST_BODY);
    if (record->rest)
        return err_fail(err, ERR_AWS, "%s %s has an attribute %s that would be lost by changing it",
                        record->name, record->type, record->rest);
    buf_puts(
        &xml,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
        "<ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\">"
        "<ChangeBatch>");
    put_element(&xml, "Comment", comment);
    buf_puts(&xml, "<Changes><Change><Action>UPSERT</Action>");
    put_record(&xml, record);
    buf_puts(&xml, "</Change></Changes></ChangeBatch></ChangeResourceRecordSetsRequest>");
    if (!buf_ok(&xml, "a Route 53 change", err) ||
        !rest(aws, "ChangeResourceRecordSets", path, NULL, buf_str(&xml), arena, &root, err))
        return false;
    *change = bare_id(xml_text(root, "ChangeInfo/Id"));
    return *change || err_fail(err, ERR_PROTOCOL,
                               "Route 53 ChangeResourceRecordSets: the answer has no change id");
}

bool route53_get_change(Aws *aws, const char *change, bool *insync, Err *err)
{
    const XmlNode *root;
    Arena arena;
    bool ok;

    arena_init(&arena, 4096);
    ok = rest(aws, "GetChange",
              arena_printf(&arena, VERSION "/change/%s", encoded(bare_id(change), &arena)), NULL,
              NULL, &arena, &root, err);
    if (ok) {
        const char *status = xml_text(root, "ChangeInfo/Status");

        *insync = status && strcmp(status, "INSYNC") == 0;
    }
    arena_fini(&arena);
    return ok;
}

typedef struct Watch {
    Aws *aws;
    const char *change;
} Watch;

static bool look_change(void *self, AwsProgress *progress, Err *err)
{
    Watch *watch = self;
    bool insync;

    if (!route53_get_change(watch->aws, watch->change, &insync, err))
        return false;
    snprintf(progress->status, sizeof(progress->status), "%s", insync ? "INSYNC" : "PENDING");
    progress->state = insync ? AWS_STATE_READY : AWS_STATE_WAIT;
    return true;
}

bool route53_wait_change(Aws *aws, const char *change, AwsProgressFn *progress, void *self,
                         Err *err)
{
    Watch watch = {aws, change};
    char text[120];
    AwsWait wait = {.what = text,
                    .look = look_change,
                    .self = &watch,
                    .progress = progress,
                    .progress_self = self};

    snprintf(text, sizeof(text), "DNS change %s", change);
    return aws_wait(aws, &wait, err);
}
