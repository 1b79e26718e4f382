#include "engine/stream/router.h"

#include "engine/stream/ddl.h"
#include "engine/stream/kin.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* One table's use in one batch. */
typedef struct Use {
    const Relation *rel;
    Table *table;
    size_t changes;
    bool moved;     /* an update changes a key */
    bool rewritten; /* there are updates or deletes */
    bool in_order;  /* written step by step */
    bool spread;    /* over all lanes, by key */
    unsigned lane;  /* unless spread */
    Kin *kin;       /* rows that depend on each other; NULL: none do, or all may */
    size_t dealt;
    uint64_t digest; /* of the keys that were spread, in order */
    Compact *parts;  /* one for each lane when spread, else one */
} Use;

typedef struct Uses {
    Arena *arena;
    const TableSource *tables;
    Use **all; /* in order of first appearance */
    size_t count, room;
    const Relation *last; /* rows come in runs of one table */
    Use *last_use;
    Use **slots;
    size_t slot_count;
    bool serial, exact, deferrable;
} Uses;

static void uses_init(Uses *uses, Arena *arena, const TableSource *tables)
{
    *uses = (Uses){.arena = arena, .tables = tables, .slot_count = 64};
    uses->slots = arena_array(arena, Use *, uses->slot_count);
}

static void uses_grow(Uses *uses)
{
    uses->slot_count *= 2;
    uses->slots = arena_array(uses->arena, Use *, uses->slot_count);
    for (size_t i = 0; i < uses->count; i++) {
        size_t at = uses->all[i]->rel->serial & (uses->slot_count - 1);

        while (uses->slots[at])
            at = (at + 1) & (uses->slot_count - 1);
        uses->slots[at] = uses->all[i];
    }
}

/* Two relations for one table in a batch: it was altered in between, and only their order is safe.
 */
static bool is_known_otherwise(const Uses *uses, const Relation *rel)
{
    for (size_t i = 0; i < uses->count; i++)
        if (uses->all[i]->rel->id == rel->id ||
            (strcmp(uses->all[i]->rel->name, rel->name) == 0 &&
             strcmp(uses->all[i]->rel->schema, rel->schema) == 0))
            return true;
    return false;
}

static Use *use_add(Uses *uses, const Relation *rel, size_t at, Err *err)
{
    Use *use = arena_new(uses->arena, Use);

    use->rel = rel;
    if (!uses->tables->table(uses->tables->self, rel, &use->table, err))
        return NULL;
    if (is_known_otherwise(uses, rel))
        uses->serial = true;
    if (uses->count == uses->room) {
        size_t room = uses->room ? uses->room * 2 : 16;
        Use **all = arena_array(uses->arena, Use *, room);

        if (uses->count)
            memcpy(all, uses->all, uses->count * sizeof(*all));
        uses->all = all;
        uses->room = room;
    }
    uses->all[uses->count++] = use;
    uses->slots[at] = use;
    uses->deferrable |= use->table->deferrable;
    return use;
}

static Use *use_of(Uses *uses, const Relation *rel, Err *err)
{
    size_t at;

    if (rel == uses->last)
        return uses->last_use;
    if (uses->count * 2 >= uses->slot_count)
        uses_grow(uses);
    at = rel->serial & (uses->slot_count - 1);
    while (uses->slots[at] && uses->slots[at]->rel->serial != rel->serial)
        at = (at + 1) & (uses->slot_count - 1);
    uses->last_use = uses->slots[at] ? uses->slots[at] : use_add(uses, rel, at, err);
    uses->last = uses->last_use ? rel : NULL;
    return uses->last_use;
}

static bool is_row(const Change *change)
{
    return change->kind == CHANGE_INSERT || change->kind == CHANGE_UPDATE ||
           change->kind == CHANGE_DELETE;
}

/* A change without what it needs can't be compacted; the exact replay says what is missing. */
static bool is_whole(const Table *table, const Change *change)
{
    if (change->kind != CHANGE_DELETE && !change->new)
        return false;
    if (change->kind == CHANGE_DELETE && !change->old)
        return false;
    return change->kind == CHANGE_INSERT || !table->inserts_only;
}

static bool survey(Uses *uses, const Batch *batch, Err *err)
{
    for (const Txn *txn = batch->first; txn; txn = txn->next) {
        if (txn->big)
            uses->serial = true;
        for (const Change *change = txn->first; change; change = change->next) {
            Use *use;

            if (!is_row(change)) {
                uses->serial |= change->kind == CHANGE_TRUNCATE;
                continue;
            }
            use = use_of(uses, change->rel, err);
            if (!use)
                return false;
            use->changes++;
            use->rewritten |= change->kind != CHANGE_INSERT;
            if (!is_whole(use->table, change))
                uses->exact = true;
            else if (!use->moved)
                use->moved = key_is_moved(use->table, change);
        }
    }
    return true;
}

static int by_changes(const void *left, const void *right)
{
    const Use *a = *(Use *const *)left, *b = *(Use *const *)right;

    return (a->changes < b->changes) - (a->changes > b->changes);
}

/* Whole tables go to the lane with the least to do, big ones first. Stable (insertion sort is, and
 * tables are few), because it must come out the same after a restart. Tables whose triggers write
 * elsewhere share lane 0, so that what they write can't be waited for across lanes. */
static void assign_lanes(Uses *uses, unsigned lanes)
{
    Use **sorted = arena_array(uses->arena, Use *, uses->count);
    uint64_t *load = arena_array(uses->arena, uint64_t, lanes);

    for (size_t i = 0; i < uses->count; i++) {
        size_t at = i;

        for (; at > 0 && by_changes(&sorted[at - 1], &uses->all[i]) > 0; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = uses->all[i];
    }
    for (size_t i = 0; i < uses->count; i++)
        if (sorted[i]->table->triggers)
            load[0] += sorted[i]->changes;
    for (size_t i = 0; i < uses->count; i++) {
        Use *use = sorted[i];

        if (use->spread || use->table->triggers)
            continue;
        for (unsigned lane = 1; lane < lanes; lane++)
            if (load[lane] < load[use->lane])
                use->lane = lane;
        load[use->lane] += use->changes;
    }
}

/* A table is cut when its rows can be told apart, and where that is dear (unique values have to be
 * looked at) only when it is more than one lane's share. */
static bool is_worth_cutting(const Use *use, size_t changes, unsigned lanes)
{
    if (!use->table->spread || lanes == 1)
        return false;
    return use->table->unique_count == 0 || use->changes > changes / lanes;
}

/* How each table is written, and over how many lanes. `steps`: everything in order. Where a table's
 * rows go doesn't depend on that. */
static unsigned decide(Uses *uses, const Batch *batch, unsigned lanes, Plan *plan, bool steps)
{
    bool any_spread = false;

    if (batch->lanes_before)
        lanes = batch->lanes_before;
    else if (batch->change_count < ROUTER_SPREAD_LEAST)
        lanes = 1;
    else if (batch->lanes_most && batch->lanes_most < lanes)
        lanes = batch->lanes_most;
    plan->could_split = false;
    for (size_t i = 0; i < uses->count; i++) {
        Use *use = uses->all[i];
        unsigned cautious = atomic_load(&use->table->cautious);
        bool splits = is_worth_cutting(use, batch->change_count, lanes);

        plan->could_split |= splits && use->table->unique_count;
        use->spread = splits && (use->table->unique_count == 0 || !plan->together);
        use->in_order = steps || use->table->ordered || cautious;
        if (use->table->key_count && (use->moved || (use->spread && use->table->unique_count)))
            use->kin = kin_new(use->table, uses->arena, use->changes);
        any_spread |= use->spread;
        if (cautious && !steps)
            atomic_store(&use->table->cautious, cautious - 1);
    }
    return batch->lanes_before || any_spread || uses->count > 1 ? lanes : 1;
}

/* Of everything that decided where rows went: also the keys' bytes, which a source could send in
 * another form. */
static uint64_t fingerprint_of(const Uses *uses, unsigned lanes)
{
    uint64_t print = XXH3_64bits_withSeed(&lanes, sizeof(lanes), 2); /* 2: this way of routing */

    for (size_t i = 0; i < uses->count; i++) {
        const Use *use = uses->all[i];
        uint64_t part[4] = {use->table->fingerprint, use->changes, use->spread ? 1 : 2 + use->lane,
                            use->digest};

        print = XXH3_64bits_withSeed(part, sizeof(part), print);
    }
    return print;
}

static void make_parts(Uses *uses, unsigned lanes)
{
    for (size_t i = 0; i < uses->count; i++) {
        Use *use = uses->all[i];
        unsigned parts = use->spread ? lanes : 1;

        use->parts = arena_array(uses->arena, Compact, parts);
        for (unsigned part = 0; part < parts; part++) {
            Compact *c = &use->parts[part];
            size_t expected = use->changes / parts + 1;

            if (use->in_order || use->rewritten)
                compact_init(c, use->table, uses->arena, use->in_order ? 0 : expected);
            else
                compact_init_inserts(c, use->table, uses->arena, expected + expected / 8);
        }
    }
}

/* False: a key isn't known. */
static bool find_kin(Uses *uses, const Batch *batch, Err *err)
{
    bool any = false;

    for (size_t i = 0; i < uses->count; i++)
        any |= uses->all[i]->kin != NULL;
    for (const Txn *txn = batch->first; any && txn; txn = txn->next)
        for (const Change *change = txn->first; change; change = change->next) {
            Use *use = is_row(change) ? use_of(uses, change->rel, err) : NULL;

            if (use && use->kin && !kin_add(use->kin, change))
                return false;
        }
    return true;
}

static bool deal_one(Use *use, const Change *change, const Txn *txn, unsigned lanes)
{
    bool in_order = use->in_order;
    uint64_t hash = 0, family;
    Compact *part;

    if ((use->spread || (!in_order && use->rewritten)) &&
        !key_hash(use->table, change_key(change), &hash))
        return false;
    family = hash;
    if (use->kin) {
        family = kin_family(use->kin, use->dealt);
        in_order |= kin_is_tied(use->kin, use->dealt++);
    }
    if (use->spread)
        use->digest = (use->digest ^ hash ^ (family << 1)) * UINT64_C(0x9E3779B97F4A7C15);
    part = &use->parts[use->spread ? (unsigned)((family >> 32) % lanes) : 0];
    if (in_order)
        compact_step(part, change, txn);
    else if (use->rewritten)
        compact_add(part, change, txn, hash);
    else
        compact_insert(part, change, txn);
    return true;
}

/* False: can't be compacted. */
static bool deal(Uses *uses, const Batch *batch, unsigned lanes, Err *err)
{
    for (const Txn *txn = batch->first; txn; txn = txn->next)
        for (const Change *change = txn->first; change; change = change->next)
            if (is_row(change) && !deal_one(use_of(uses, change->rel, err), change, txn, lanes))
                return false;
    return true;
}

/* False: contradictions. */
static bool finish(Uses *uses, unsigned lanes, TableRows **lists)
{
    for (size_t i = uses->count; i-- > 0;) {
        Use *use = uses->all[i];

        for (unsigned part = 0; part < (use->spread ? lanes : 1); part++) {
            Compact *c = &use->parts[part];
            unsigned lane = use->spread ? part : use->lane;

            if (c->confused)
                return false;
            compact_finish(c);
            c->rows.next = lists[lane];
            lists[lane] = &c->rows;
        }
    }
    return true;
}

/* A big transaction, which is alone in its batch, isn't read for it. */
static bool may_alter(const Batch *batch)
{
    if (batch->first->big)
        return true;
    for (const Txn *txn = batch->first; txn; txn = txn->next)
        for (const Change *change = txn->first; change; change = change->next)
            if (ddl_is(change))
                return true;
    return false;
}

static bool route(Plan *plan, unsigned lanes, const TableSource *tables, bool steps, Err *err)
{
    Uses uses;

    uses_init(&uses, &plan->arena, tables);
    plan->lanes = 1;
    plan->form = PLAN_EXACT;
    plan->may_alter = may_alter(plan->batch);
    if (plan->may_alter) {
        /* Tables aren't what they will be. */
        plan->deferrable = true;
        plan->form = PLAN_SERIAL;
        return true;
    }
    if (!survey(&uses, plan->batch, err)) {
        /* Something about a table: the exact replay applies what comes before it, and names the
         * transaction. */
        if (err->kind != ERR_FAITHFUL)
            return false;
        err_clear(err);
        return true;
    }
    plan->deferrable =
        true; /* for what wasn't looked through: a big transaction, an exact replay */
    if (uses.exact)
        return true;
    if (uses.serial) {
        plan->form = PLAN_SERIAL;
        return true;
    }
    plan->deferrable = uses.deferrable;
    lanes = decide(&uses, plan->batch, lanes, plan, steps);
    if (!find_kin(&uses, plan->batch, err))
        return true;
    assign_lanes(&uses, lanes);
    make_parts(&uses, lanes);
    plan->parts = arena_array(&plan->arena, TableRows *, lanes);
    if (!deal(&uses, plan->batch, lanes, err) || !finish(&uses, lanes, plan->parts))
        return true;
    plan->fingerprint = fingerprint_of(&uses, lanes);
    plan->lanes = lanes;
    plan->form = PLAN_PARTS;
    return true;
}

Plan *plan_new(Batch *batch, unsigned lanes, bool together, const TableSource *tables, Err *err)
{
    Plan *plan = calloc(1, sizeof(*plan));

    if (!plan)
        abort();
    arena_init(&plan->arena, KIB(64));
    plan->batch = batch;
    plan->together = together;
    if (!route(plan, lanes, tables, false, err)) {
        plan_free(plan);
        return NULL;
    }
    return plan;
}

bool plan_again(Plan *plan, unsigned lanes, bool together, const TableSource *tables, Err *err)
{
    plan->together = together;
    return route(plan, lanes, tables, false, err);
}

void plan_free(Plan *plan)
{
    if (!plan)
        return;
    batch_free(plan->batch);
    arena_fini(&plan->arena);
    free(plan);
}

bool plan_steps(Plan *plan, unsigned lane, const TableSource *tables, TableRows **steps, Err *err)
{
    unsigned lanes = plan->lanes;

    if (!route(plan, lanes, tables, true, err))
        return false;
    if (plan->form != PLAN_PARTS || plan->lanes != lanes || lane >= lanes)
        return err_fail(err, ERR_BUG, "a batch was routed over %u lanes and now over %u", lanes,
                        plan->lanes);
    *steps = plan->parts[lane];
    return true;
}

struct Gather {
    Arena arena;
    Uses uses;
    const TableSource *tables;
};

Gather *gather_new(const TableSource *tables)
{
    Gather *g = calloc(1, sizeof(*g));

    if (!g)
        abort();
    arena_init(&g->arena, KIB(64));
    g->tables = tables;
    uses_init(&g->uses, &g->arena, tables);
    return g;
}

void gather_free(Gather *g)
{
    if (!g)
        return;
    arena_fini(&g->arena);
    free(g);
}

void gather_reset(Gather *g)
{
    arena_reset(&g->arena);
    uses_init(&g->uses, &g->arena, g->tables);
}

static void gather_open(Gather *g, Use *use, const Change *change)
{
    const Table *table = use->table;

    use->in_order =
        table->ordered || atomic_load(&use->table->cautious) || key_is_moved(table, change);
    use->parts = arena_array(&g->arena, Compact, 1);
    compact_init(use->parts, use->table, &g->arena, 0);
}

GatherResult gather_add(Gather *g, const Change *change, const Txn *txn, Err *err)
{
    uint64_t hash;
    Use *use = use_of(&g->uses, change->rel, err);

    if (!use)
        return err->kind == ERR_FAITHFUL ? GATHER_EXACT : GATHER_FAILED;
    if (g->uses.serial) /* the table was altered in between */
        return GATHER_FLUSH_FIRST;
    if (!is_whole(use->table, change))
        return GATHER_EXACT;
    if (!use->parts)
        gather_open(g, use, change);
    if (use->in_order) {
        compact_step(use->parts, change, txn);
        return GATHER_ADDED;
    }
    if (key_is_moved(use->table, change))
        return GATHER_FLUSH_FIRST;
    if (!key_hash(use->table, change_key(change), &hash))
        return GATHER_EXACT;
    compact_add(use->parts, change, txn, hash);
    return GATHER_ADDED;
}

TableRows *gather_rows(Gather *g, bool *confused)
{
    TableRows *list = NULL;

    for (size_t i = g->uses.count; i-- > 0;) {
        Compact *c = g->uses.all[i]->parts;

        if (!c)
            continue;
        *confused |= c->confused;
        compact_finish(c);
        c->rows.next = list;
        list = &c->rows;
    }
    return list;
}
