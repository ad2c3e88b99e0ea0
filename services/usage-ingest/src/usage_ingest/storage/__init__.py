"""All SQL of the service but that of recovery: who moves rows on, and who only reads them."""
