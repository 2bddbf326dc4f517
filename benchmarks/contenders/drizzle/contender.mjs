// Drizzle on node-postgres: the same calls as the other contenders, a JSON object a line; see
// benchmarks/worker.py. ORM_CORE_BENCHMARK_MODULES is the folder that npm installed into.
import { createCipheriv, randomBytes, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.ORM_CORE_BENCHMARK_MODULES}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const pg = (await load("pg")).default;
const { drizzle } = await load("drizzle-orm/node-postgres");
const { and, asc, eq, isNull, relations, sql } = await load("drizzle-orm");
const { integer, jsonb, pgEnum, pgTable, text, timestamp, uuid, varchar } =
  await load("drizzle-orm/pg-core");

const [url, poolSize, sizes] = process.argv.slice(2);
const { PAGE, MANY, PARENTS, BULK, USERS, SEEDED, TOKENS, EXPIRES } = JSON.parse(sizes);

const at = (name) => timestamp(name, { withTimezone: true });
const standard = {
  id: uuid("id").primaryKey().defaultRandom(),
  createdAt: at("created_at").notNull().defaultNow(),
  updatedAt: at("updated_at").notNull().defaultNow(),
  deletedAt: at("deleted_at"),
};
const users = pgTable("users", {
  email: text("email").notNull(),
  firstName: text("first_name").notNull(),
  lastName: text("last_name"),
  avatar: text("avatar"),
  providerAccountId: text("provider_account_id").notNull(),
  ...standard,
});
const sessions = pgTable("sessions", {
  userId: uuid("user_id").notNull().references(() => users.id),
  status: pgEnum("session_status", ["active", "expired", "revoked"])("status")
    .notNull()
    .default("active"),
  provider: pgEnum("session_provider", ["google"])("provider").notNull(),
  providerAccessToken: varchar("provider_access_token", { length: 2048 }).notNull(),
  providerAccessTokenIv: varchar("provider_access_token_iv", { length: 32 }).notNull(),
  providerAccessTokenTag: varchar("provider_access_token_tag", { length: 32 }).notNull(),
  providerAccessTokenExpiresAt: at("provider_access_token_expires_at"),
  providerRefreshToken: varchar("provider_refresh_token", { length: 2048 }),
  providerRefreshTokenIv: varchar("provider_refresh_token_iv", { length: 32 }),
  providerRefreshTokenTag: varchar("provider_refresh_token_tag", { length: 32 }),
  providerRefreshTokenExpiresAt: at("provider_refresh_token_expires_at"),
  providerAccountId: varchar("provider_account_id", { length: 255 }).notNull(),
  providerScope: text("provider_scope"),
  expiresAt: at("expires_at").notNull(),
  lastAccessedAt: at("last_accessed_at"),
  metadata: jsonb("metadata").default({}),
  ...standard,
});
const orders = pgTable("orders", {
  userId: uuid("user_id").notNull().references(() => users.id),
  status: text("status").notNull().default("pending"),
  total: integer("total").notNull(),
  ...standard,
});
const schema = {
  users,
  sessions,
  usersRelations: relations(users, ({ many }) => ({ sessions: many(sessions) })),
  sessionsRelations: relations(sessions, ({ one }) => ({
    user: one(users, { fields: [sessions.userId], references: [users.id] }),
  })),
};

const pool = new pg.Pool({ connectionString: url, max: Number(poolSize), idleTimeoutMillis: 0 });
const keyOf = (number) => SEEDED + String(number).padStart(12, "0");
const userNumber = (index) => ((index * 7) % (USERS / 2)) + 1;
const newUser = (index) => ({
  email: `new${index}@example.com`,
  firstName: "Ada",
  lastName: "Lovelace",
  providerAccountId: `account-${index}`,
});

function seal(value, column, row) {
  const iv = randomBytes(12);
  const key = Uint8Array.from({ length: 32 }, (_, byte) => byte);
  const cipher = createCipheriv("aes-256-gcm", key, iv);
  cipher.setAAD(Buffer.from(["orm_core:1", "k1", "sessions", column, row].join("\0")));
  const data = cipher.update(value, "utf8", "hex") + cipher.final("hex");
  return [data, `${iv.toString("hex")}.k1`, cipher.getAuthTag().toString("hex")];
}

const live = (db, limit) =>
  db.select().from(users).where(isNull(users.deletedAt)).orderBy(asc(users.id)).limit(limit);

const calls = {
  async mark(db) {
    return (await db.execute(sql`SELECT pg_backend_pid() AS pid`)).rows[0].pid;
  },
  async find(db, index) {
    const email = `user${userNumber(index)}@example.com`;
    const where = and(eq(users.email, email), isNull(users.deletedAt));
    return (await db.select().from(users).where(where).limit(1))[0];
  },
  async page(db) {
    return (await live(db, PAGE + 1)).slice(0, PAGE);
  },
  many: (db) => live(db, MANY),
  async relations(db) {
    const found = await db.query.users.findMany({
      where: isNull(users.deletedAt),
      orderBy: asc(users.id),
      limit: PARENTS,
      with: { sessions: { where: isNull(sessions.deletedAt) } },
    });
    return found.map((user) => [user, user.sessions]);
  },
  async create(db, index) {
    return (await db.insert(users).values(newUser(index)).returning())[0];
  },
  async update(db, index) {
    return (
      await db
        .update(users)
        .set({ firstName: "Grace", lastName: "Hopper", updatedAt: new Date() })
        .where(and(eq(users.id, keyOf(userNumber(index))), isNull(users.deletedAt)))
        .returning()
    )[0];
  },
  async soft_delete(db, index) {
    const now = new Date();
    return (
      await db
        .update(orders)
        .set({ deletedAt: now, updatedAt: now })
        .where(and(eq(orders.id, keyOf(index + 1)), isNull(orders.deletedAt)))
        .returning()
    )[0];
  },
  sign_up: (db, index) =>
    db.transaction(async (tx) => {
      const [user] = await tx.insert(users).values(newUser(index)).returning();
      const id = randomUUID();
      const values = {};
      for (const [column, token] of Object.entries(TOKENS)) {
        const [value, iv, tag] = seal(token, column, id);
        const name = column.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
        Object.assign(values, { [name]: value, [`${name}Iv`]: iv, [`${name}Tag`]: tag });
      }
      const [session] = await tx
        .insert(sessions)
        .values({
          id,
          userId: user.id,
          provider: "google",
          providerAccountId: user.providerAccountId,
          expiresAt: new Date(EXPIRES),
          ...values,
        })
        .returning();
      return [user, session];
    }),
  async bulk(db) {
    const ids = [];
    for (let start = 0; start < BULK; start += 1000) {
      const rows = Array.from({ length: 1000 }, (_, place) => ({
        userId: keyOf(1),
        status: "paid",
        total: start + place,
      }));
      ids.push(...(await db.insert(orders).values(rows).returning({ id: orders.id })));
    }
    return ids.map((row) => row.id);
  },
};
const kindOf = (index) =>
  index % 10 === 0 ? "create" : [3, 6].includes(index % 10) ? "update" : "find";
calls.mixed = (db, index) => calls[kindOf(index)](db, index);

// What has to be equal of a result, in the words of benchmarks/worker.py.
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const COLUMNS = [
  ["userId", "status", "provider", "providerAccountId", "metadata"],
  ["email", "firstName", "lastName", "avatar", "providerAccountId", "deletedAt"],
  ["status", "total", "userId"],
];
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "number") return value;
  if (typeof value !== "object") return "id";
  const columns = COLUMNS.find((names) => names.every((name) => name in value));
  return Object.fromEntries(
    columns.map((name) => {
      let one = value[name];
      if (name === "deletedAt") one = one !== null;
      if (name === "userId" && !one.startsWith(SEEDED)) one = "new";
      return [snake(name), one];
    }),
  );
}

async function withConnection(work) {
  const client = await pool.connect();
  try {
    return await work(drizzle(client, { schema }));
  } finally {
    client.release();
  }
}

async function share(orders, part) {
  const call = calls[orders.call];
  const end = orders.start + orders.times;
  let result = null;
  if (orders.checkout) {
    const db = drizzle(pool, { schema }); // each query takes a connection of the pool
    for (let index = orders.start + part; index < end; index += orders.threads)
      result = await call(db, index);
  } else {
    await withConnection(async (db) => {
      for (let index = orders.start + part; index < end; index += orders.threads)
        result = await call(db, index);
    });
  }
  return result;
}

const say = (reply) => process.stdout.write(`${JSON.stringify(reply)}\n`);
const modules = `${process.env.ORM_CORE_BENCHMARK_MODULES}/node_modules`;
const version = (name) => JSON.parse(readFileSync(`${modules}/${name}/package.json`)).version;
say({
  returns: "plain object",
  versions: { node: process.versions.node, "drizzle-orm": version("drizzle-orm"), pg: version("pg") },
  unable_to: {},
});
for await (const line of createInterface({ input: process.stdin })) {
  const orders = JSON.parse(line);
  try {
    const started = process.hrtime.bigint();
    const parts = Array.from({ length: orders.threads }, (_, part) => share(orders, part));
    const result = (await Promise.all(parts)).at(-1);
    const seconds = Number(process.hrtime.bigint() - started) / 1e9;
    say({ seconds, ...(orders.show ? { result: plain(result) } : {}) });
  } catch (error) {
    say({ error: `${error}${error.cause ? `: ${error.cause}` : ""}` });
  }
}
await pool.end();
