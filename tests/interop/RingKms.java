// Unwraps the file keys of a lake for Spark, with master keys that `counterfoil keys export` printed.
//
// The Hadoop setting `counterfoil.keys` names a folder, in which the file `ring-1` holds the base64 of that key. A wrapped
// key is nonce (12), AES-256-GCM ciphertext (32), tag (16); the master key's id is the associated data.

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.util.Base64;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import org.apache.hadoop.conf.Configuration;
import org.apache.parquet.crypto.ParquetCryptoRuntimeException;
import org.apache.parquet.crypto.keytools.KmsClient;

public final class RingKms implements KmsClient {
    private Path folder;

    @Override
    public void initialize(Configuration settings, String instance, String url, String token) {
        folder = Path.of(settings.getTrimmed("counterfoil.keys"));
    }

    @Override
    public String wrapKey(byte[] key, String masterKey) {
        throw new UnsupportedOperationException("this client reads only");
    }

    @Override
    public byte[] unwrapKey(String wrapped, String masterKey) {
        if (!masterKey.matches("(ring|restricted)-[0-9]+")) {
            throw new ParquetCryptoRuntimeException("no id of a ring key: " + masterKey);
        }
        try {
            byte[] bytes = Base64.getDecoder().decode(wrapped);
            byte[] key = Base64.getDecoder().decode(Files.readString(folder.resolve(masterKey)).trim());
            Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
            cipher.init(Cipher.DECRYPT_MODE, new SecretKeySpec(key, "AES"), new GCMParameterSpec(128, bytes, 0, 12));
            cipher.updateAAD(masterKey.getBytes(StandardCharsets.UTF_8));
            return cipher.doFinal(bytes, 12, bytes.length - 12);
        } catch (IOException | GeneralSecurityException error) {
            throw new ParquetCryptoRuntimeException("failed to unwrap a key with " + masterKey, error);
        }
    }
}
