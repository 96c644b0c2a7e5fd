-- The gateways that run, each under one lease for all the sessions that it holds.
CREATE TABLE whatsapp_gateways (
    id uuid PRIMARY KEY,
    -- The host's name, for operators.
    name text NOT NULL,
    capacity integer NOT NULL CHECK (capacity > 0),
    -- Sessions that it starts per second.
    connect_rate integer NOT NULL CHECK (connect_rate > 0),
    sessions integer NOT NULL,
    -- It is about to end, and gives its sessions away.
    draining boolean NOT NULL,
    lease_seconds double precision NOT NULL,
    -- The connection to PostgreSQL on which it renews: gone when the process is.
    backend integer NOT NULL,
    backend_start timestamptz NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    renewed_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE whatsapp_connections
    ADD owner uuid REFERENCES whatsapp_gateways ON DELETE SET NULL,
    ADD owner_since timestamptz NOT NULL DEFAULT now(),
    ADD epoch bigint NOT NULL DEFAULT 0;

CREATE INDEX whatsapp_connections_held ON whatsapp_connections (owner) WHERE owner IS NOT NULL;
CREATE INDEX whatsapp_connections_free ON whatsapp_connections (created_at)
    WHERE owner IS NULL
        AND (desired = 'connected' OR status <> desired OR deleted_at IS NOT NULL);

-- Whether the lease stands, and so will until the statement that asks is through: whoever claims the
-- connection waits for it, and is then the only one for whom this is true.
--
-- Volatile, so that the epoch is read after the lock is had, and not as the asking statement saw it. Who asks
-- for several leases asks in the order of their locks.
CREATE FUNCTION lease_is_held(connection uuid, epoch bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1818583411, hashtext(connection::text));
    RETURN EXISTS (SELECT FROM whatsapp_connections AS c
        WHERE c.id = lease_is_held.connection AND c.epoch = lease_is_held.epoch);
END
$$;

-- The same, and an error where the lease is lost.
CREATE FUNCTION lease_stands(connection uuid, epoch bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF lease_is_held(connection, epoch) THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'the lease of connection % in epoch % is lost', connection, epoch
        USING ERRCODE = 'check_violation', CONSTRAINT = 'lease_stands';
END
$$;

-- The other side of it: no statement that passed before is still under way.
CREATE FUNCTION lease_settle(connections uuid[]) RETURNS void
    LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(1818583411, key)
    FROM (SELECT DISTINCT hashtext(id::text) AS key FROM unnest(connections) AS id ORDER BY key) AS keys
$$;
